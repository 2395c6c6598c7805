"""What every registered transform of a cascade's masks must do, those of installed plug-ins included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.transforms import TRANSFORMS
from decathlete.augmentation.transforms._masks import MaskSettings, MaskTransform

PATCHES = [(20, 24, 18), (5, 20, 20), (24, 20)]
SEEDS = range(20)

NAMES = [name for name in TRANSFORMS.names() if issubclass(TRANSFORMS.resolve(name).cls, MaskTransform)]
pytestmark = [pytest.mark.parametrize("name", NAMES), pytest.mark.parametrize("patch_size", PATCHES)]


def config_with(name: str, **settings: object) -> AugmentationConfig:
    """Only this transform, changing every sample unless ``settings`` say otherwise."""
    return AugmentationConfig.none().revised(**{name: {"probability": 1.0, **settings}})


def transformed(name: str, masks_SZYX: torch.Tensor, *, seed: int, **settings: object) -> torch.Tensor:
    config = config_with(name, **settings)
    transform = TRANSFORMS.build(config[name], config.patch(tuple(masks_SZYX.shape[1:])))
    result_SZYX = masks_SZYX.clone()
    transform(result_SZYX, np.random.default_rng(seed))
    return result_SZYX


def two_structures(patch_size: tuple[int, ...]) -> torch.Tensor:
    """Two masks that touch and do not overlap, each with a large part and two small ones."""
    masks_SZYX = torch.zeros((2, *patch_size))
    middle, last = patch_size[-1] // 2, patch_size[-1] - 1
    around = tuple(slice(1, -1) for _ in patch_size[:-1])
    masks_SZYX[(0, *around, slice(3, middle))] = 1
    masks_SZYX[(1, *around, slice(middle, last - 2))] = 1
    for end in (0, -1):
        corner = (end,) * (len(patch_size) - 1)
        masks_SZYX[(0, *corner, 0)] = 1
        masks_SZYX[(1, *corner, last)] = 1
    return masks_SZYX


def test_it_has_documented_settings_that_survive_a_file(name, patch_size):
    component = TRANSFORMS.resolve(name)
    assert issubclass(component.settings, MaskSettings)
    assert component.summary
    assert [name for name, text in component.settings.descriptions().items() if not text] == []
    config = config_with(name)
    assert AugmentationConfig.model_validate_json(config.model_dump_json()) == config


def test_it_changes_masks_and_repeats_by_seed(name, patch_size):
    masks_SZYX = two_structures(patch_size)
    results = [transformed(name, masks_SZYX, seed=seed) for seed in SEEDS]
    assert all(torch.equal(transformed(name, masks_SZYX, seed=s), results[s]) for s in SEEDS)
    assert any(not torch.equal(result, masks_SZYX) for result in results)
    assert any(not torch.equal(result, results[0]) for result in results)


def test_masks_stay_binary_and_apart(name, patch_size):
    for seed in SEEDS:
        result_SZYX = transformed(name, two_structures(patch_size), seed=seed)
        assert result_SZYX.dtype == torch.float32
        assert set(result_SZYX.unique().tolist()) <= {0.0, 1.0}
        assert int(result_SZYX.sum(dim=0).max()) <= 1


def test_a_change_returns_another_tensor_of_the_same_shape(name, patch_size):
    config = config_with(name)
    transform = TRANSFORMS.build(config[name], config.patch(patch_size))
    for seed in SEEDS:
        mask_ZYX = two_structures(patch_size)[0]
        changed_ZYX = transform.change(mask_ZYX, np.random.default_rng(seed))
        assert (changed_ZYX.shape, changed_ZYX.device) == (mask_ZYX.shape, mask_ZYX.device)
        assert torch.equal(mask_ZYX, two_structures(patch_size)[0]), "the argument is overwritten"


@pytest.mark.parametrize("off", [{"enabled": False}, {"probability": 0.0}, {"structure_probability": 0.0}], ids=str)
def test_disabled_it_changes_nothing(name, patch_size, off):
    masks_SZYX = two_structures(patch_size)
    assert all(torch.equal(transformed(name, masks_SZYX, seed=seed, **off), masks_SZYX) for seed in SEEDS)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_stay_binary(name, patch_size, value):
    for seed in SEEDS:
        result_SZYX = transformed(name, torch.full((1, *patch_size), value), seed=seed)
        assert set(result_SZYX.unique().tolist()) <= {0.0, 1.0}
