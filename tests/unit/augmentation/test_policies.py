"""Policies, cutout and loss of channels: what they change, and that single settings may be changed beside them."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from decathlete import train_config
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.draws import RowContext
from decathlete.augmentation.policies import POLICIES
from decathlete.augmentation.transforms import TRANSFORMS, Patch
from decathlete.training.config import TrainConfig


def test_policies_are_ordered_by_strength() -> None:
    chances = [sum(s.chance for s in AugmentationConfig.model_validate(p).root.values()) for p in POLICIES]
    assert chances == sorted(chances)
    assert chances[0] == 0
    assert AugmentationConfig.model_validate("standard") == AugmentationConfig.model_validate({})


def test_single_settings_count_beside_a_policy() -> None:
    config = TrainConfig(augmentation={"policy": "heavy", "cutout": {"probability": 0.5}})  # type: ignore[arg-type]
    assert config.augmentation is not None
    assert config.augmentation["cutout"].probability == 0.5
    assert config.augmentation["rotation"].probability == 0.4
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match="no policy 'mild'"):
        TrainConfig(augmentation="mild")  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["none", "light"])
def test_a_transform_with_a_setting_is_used_beside_a_policy_that_disables_it(policy: str) -> None:
    config = AugmentationConfig.model_validate({"policy": policy, "blur": {"probability": 0.3}})
    assert config["blur"].chance == 0.3
    assert config["low_resolution"].chance == 0
    off = AugmentationConfig.model_validate({"policy": policy, "blur": {"probability": 0.3, "enabled": False}})
    assert off["blur"].chance == 0


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_replaces_the_augmentation_of_a_preset(policy: str) -> None:
    config = train_config(preset="recipe", dims=3, **{"augmentation.policy": policy})
    assert config.augmentation == AugmentationConfig.model_validate(policy)
    assert train_config(preset="recipe", dims=3).augmentation == AugmentationConfig.recipe(3)


def context(transform: str, samples: tuple[int, ...], channels: tuple[int, ...]) -> RowContext:
    return RowContext(seed=1, transform=transform, step=3, samples=samples, channels=channels)


def test_cutout_replaces_one_box_alike_in_all_channels() -> None:
    cutout = TRANSFORMS.build(TRANSFORMS.settings("cutout"), Patch(size=(20, 30)))
    rows = torch.randn((3, 20, 30), generator=torch.Generator().manual_seed(0))
    changed = cutout(rows.clone(), torch.tensor([0.5, 0.5, 0.2]), context("cutout", (4, 4, 5), (0, 1, 0)))
    masks = changed != rows
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    for row, mask, before in zip(changed, masks, rows, strict=True):
        assert 0 < mask.sum() < mask.numel()
        torch.testing.assert_close(row[mask], before.mean().expand(int(mask.sum())))
        ys, xs = mask.nonzero().T
        assert mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].all()


def test_one_channel_of_several_is_lost_and_never_the_only_one() -> None:
    import numpy as np

    settings = TRANSFORMS.settings({"name": "channel_dropout", "probability": 1.0})
    dropout = TRANSFORMS.build(settings, Patch(size=(8, 8)))
    drawn = [dropout.draw(np.random.default_rng(seed), 3) for seed in range(60)]
    assert {len(d) for d in drawn} == {1}
    assert {channel for d in drawn for channel in d} == {0, 1, 2}
    assert dropout.draw(np.random.default_rng(0), 1) == {}
