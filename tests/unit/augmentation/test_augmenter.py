"""The whole augmentation: switches, seeds, ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decathlete.augmentation.batch import RawBatch, collate
from decathlete.augmentation.config import DEFAULT_TRANSFORMS, AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.errors import OptionError

CPU = torch.device("cpu")
PATCHES = [(12, 16, 10), (16, 12)]


def source(size, n_channels, index):
    generator = np.random.default_rng(index)
    return generator.normal(size=(n_channels, *size)).astype(np.float32), generator.integers(0, 3, size).astype(
        np.uint8
    )


def raw_batch(augmenter: Augmenter, step: int, indices, n_channels: int = 2) -> RawBatch:
    draws = [augmenter.draw(step, i) for i in indices]
    images, labels = zip(*[source(d.size, n_channels, i) for d, i in zip(draws, indices, strict=True)], strict=True)
    return collate(step, indices, draws, [f"case{i}" for i in indices], images, labels)


def only(name: str, probability: float = 1.0, **changes) -> AugmentationConfig:
    none = AugmentationConfig.none()
    every_channel = {"channel_probability": 1.0} if hasattr(none[name], "channel_probability") else {}
    return none.revised(**{name: {"enabled": True, "probability": probability} | every_channel | changes})


@pytest.mark.parametrize("patch_size", PATCHES)
def test_switched_off_nothing_changes(patch_size):
    augmenter = Augmenter(AugmentationConfig.none(), patch_size=patch_size, seed=0)
    batch = raw_batch(augmenter, 0, range(3))
    image, label = augmenter(batch, CPU)
    assert image.shape == (3, 2, *patch_size)
    assert torch.equal(image, batch.plain_PCZYX)
    assert torch.equal(label, batch.plain_label_PZYX)


@pytest.mark.parametrize("patch_size", PATCHES)
@pytest.mark.parametrize("name", DEFAULT_TRANSFORMS)
def test_each_transform_alone_has_an_effect_and_is_seeded(name, patch_size):
    plain = Augmenter(AugmentationConfig.none(), patch_size=patch_size, seed=0)
    before, _ = plain(raw_batch(plain, 0, range(4)), CPU)

    def augmented(seed: int, step: int = 0):
        augmenter = Augmenter(only(name), patch_size=patch_size, seed=seed)
        return augmenter(raw_batch(augmenter, step, range(4)), CPU)

    image, label = augmented(0)
    assert torch.isfinite(image).all()
    assert image.shape == before.shape
    assert label.dtype == torch.uint8
    assert all(not torch.equal(a, b) for a, b in zip(image, before, strict=True))
    assert torch.equal(image, augmented(0)[0])
    if name != "mirroring":  # sixteen flips all alike: not unlikely enough
        assert not torch.equal(image, augmented(1)[0])
        assert not torch.equal(image, augmented(0, step=1)[0])


def test_switching_one_off_leaves_the_draws_of_the_others():
    full = AugmentationConfig.default(3)
    less = full.revised(blur={"enabled": False}, scaling={"enabled": False})
    a = Augmenter(full, patch_size=(12, 12, 12), seed=3)
    b = Augmenter(less, patch_size=(12, 12, 12), seed=3)
    assert [a.draw(0, i).flips for i in range(20)] == [b.draw(0, i).flips for i in range(20)]
    strengths_a, strengths_b = list(a.strengths(0, range(20), 2)), list(b.strengths(0, range(20), 2))
    for one, other in zip([s for s in strengths_a if s[0] != "blur"], strengths_b, strict=True):
        np.testing.assert_equal(one, other)


@pytest.mark.parametrize("patch_size", PATCHES)
def test_two_ranks_see_what_one_process_sees(patch_size):
    augmenter = Augmenter(AugmentationConfig.default(len(patch_size)), patch_size=patch_size, seed=1)
    for step in range(4):
        image, label = augmenter(raw_batch(augmenter, step, range(8)), CPU)
        halves = [augmenter(raw_batch(augmenter, step, range(a, a + 4)), CPU) for a in (0, 4)]
        torch.testing.assert_close(torch.cat([h[0] for h in halves]), image, atol=1e-4, rtol=0)
        assert torch.equal(torch.cat([h[1] for h in halves]), label)


def test_the_raw_batch_is_left_as_it_was():
    augmenter = Augmenter(AugmentationConfig.default(3), patch_size=(12, 12, 12), seed=1)
    batch = raw_batch(augmenter, 0, range(8))
    copy = batch.plain_PCZYX.clone(), batch.warped_WCZYX.clone()
    augmenter(batch, CPU)
    assert torch.equal(batch.plain_PCZYX, copy[0])
    assert torch.equal(batch.warped_WCZYX, copy[1])


def test_channel_probability_and_frequency():
    augmenter = Augmenter(only("brightness", 0.5, channel_probability=0.5), patch_size=(4, 4), seed=0)
    plain = Augmenter(AugmentationConfig.none(), patch_size=(4, 4), seed=0)
    indices = range(500)
    changed, _ = augmenter(raw_batch(augmenter, 0, indices), CPU)
    before, _ = plain(raw_batch(plain, 0, indices), CPU)
    different = (changed != before).flatten(2).any(2).float()
    assert different.mean().item() == pytest.approx(0.25, abs=0.05)
    assert different.amax(1).mean().item() == pytest.approx(0.375, abs=0.06)


@pytest.mark.parametrize("patch_size", PATCHES)
def test_runs_without_numbers_on_the_meta_device(patch_size):
    augmenter = Augmenter(AugmentationConfig.default(len(patch_size)), patch_size=patch_size, seed=1)
    image, label = augmenter(raw_batch(augmenter, 0, range(16)), "meta")
    assert image.shape == (16, 2, *patch_size)
    assert label.shape == (16, *patch_size)


def test_an_axis_that_is_not_there_is_refused():
    config = AugmentationConfig.model_validate({"mirroring": {"axes": (2,)}})
    with pytest.raises(OptionError, match="2D patch"):
        Augmenter(config, patch_size=(8, 8), seed=0)


@pytest.mark.parametrize("patch_size", PATCHES)
def test_masks_move_with_the_image_but_have_no_intensities(patch_size):
    """The image's channels come out as without the mask, and the mask as 0 and 1, whatever is drawn."""
    config = AugmentationConfig.default(len(patch_size))
    often = {name: 0.4 if name in ("rotation", "scaling") else 0.7 for name in config.names}
    changes = {name: {"probability": p} for name, p in often.items()}
    augmenter = Augmenter(config.revised(**changes), patch_size=patch_size, seed=3, n_masks=1)
    draws = [augmenter.draw(0, i) for i in range(6)]
    images, labels = zip(*[source(d.size, 2, i) for i, d in enumerate(draws)], strict=True)
    names = [f"case{i}" for i in range(6)]
    masks = [(label == 1)[None].astype(np.float32) for label in labels]
    masked = collate(0, range(6), draws, names, [np.concatenate(p) for p in zip(images, masks, strict=True)], labels)
    bare = collate(0, range(6), draws, names, images, labels)
    image, label = augmenter(masked, CPU)
    without, _ = Augmenter(augmenter.config, patch_size=patch_size, seed=3)(bare, CPU)
    torch.testing.assert_close(image[:, :2], without)
    assert set(image[:, 2].unique().tolist()) == {0, 1}
    plain = list(bare.plain)
    assert 0 < len(plain) < 6
    assert torch.equal(image[plain, 2] == 1, label[plain] == 1)
