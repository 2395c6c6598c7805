"""What every registered spatial or intensity transform must do, those of installed plug-ins included.

Those of the masks of a cascade are in ``test_mask_transform.py``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decathlete.augmentation.batch import RawBatch, collate
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.augmentation.transforms import TRANSFORMS, IntensityTransform, SpatialTransform, TransformSettings
from decathlete.augmentation.transforms._masks import MaskTransform
from decathlete.core.labels import IGNORE_INDEX

PATCHES = [(20, 24, 18), (5, 20, 20), (24, 20)]
N_SAMPLES = 8
N_CHANNELS = 2
CPU = torch.device("cpu")

NAMES = [name for name in TRANSFORMS.names() if not issubclass(TRANSFORMS.resolve(name).cls, MaskTransform)]
pytestmark = [pytest.mark.parametrize("name", NAMES), pytest.mark.parametrize("patch_size", PATCHES)]


def augmenter_with(name: str, patch_size: tuple[int, ...], seed: int = 1, **settings) -> Augmenter:
    """Only this transform, changing every sample and channel unless ``settings`` say otherwise."""
    fields = TRANSFORMS.resolve(name).settings.model_fields
    always = {"enabled": True, "probability": 1.0, "channel_probability": 1.0}
    chosen = {field: value for field, value in always.items() if field in fields} | settings
    config = AugmentationConfig.none().revised(**{name: chosen})
    return Augmenter(config, patch_size=patch_size, seed=seed, n_masks=1)


def raw_batch(augmenter: Augmenter, step: int = 0, indices=range(N_SAMPLES)) -> RawBatch:
    """Two channels of noise and a mask; the label is 1 in the mask, an off-centre box, and ignored in a smaller one."""
    draws = [augmenter.draw(step, index) for index in indices]
    images, labels = [], []
    for index, draw in zip(indices, draws, strict=True):
        offsets = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in draw.size], indexing="ij")
        half = [n / 2 for n in augmenter.patch_size]
        inside = np.all([(-0.7 * h < x) & (x < 0.2 * h) for x, h in zip(offsets, half, strict=True)], axis=0)
        ignored = np.all([(0.4 * h < x) & (x < 0.9 * h) for x, h in zip(offsets, half, strict=True)], axis=0)
        noise = np.random.default_rng(index).normal(size=(N_CHANNELS, *draw.size))
        images.append(np.concatenate([noise, inside[None]]).astype(np.float32))
        labels.append(np.where(ignored, IGNORE_INDEX, inside).astype(np.uint8))
    return collate(step, list(indices), draws, [str(index) for index in indices], images, labels)


def augmented(augmenter: Augmenter, step: int = 0, indices=range(N_SAMPLES)):
    return augmenter(raw_batch(augmenter, step, indices), CPU)


def test_it_has_one_role_and_documented_settings_that_survive_a_file(name, patch_size):
    component = TRANSFORMS.resolve(name)
    assert issubclass(component.cls, SpatialTransform) != issubclass(component.cls, IntensityTransform)
    assert issubclass(component.settings, TransformSettings)
    assert component.summary
    assert [name for name, text in component.settings.descriptions().items() if not text] == []
    config = augmenter_with(name, patch_size).config
    assert AugmentationConfig.model_validate_json(config.model_dump_json()) == config


def test_it_changes_every_sample_and_repeats_by_seed_and_step(name, patch_size):
    plain, _ = augmented(augmenter_with(name, patch_size, enabled=False))
    image, _ = augmented(augmenter_with(name, patch_size))
    assert all(not torch.equal(a, b) for a, b in zip(image, plain, strict=True))
    # Half of the samples, else a transform without a strength is the same with every seed.
    image, label = augmented(augmenter_with(name, patch_size, probability=0.5))
    again_image, again_label = augmented(augmenter_with(name, patch_size, probability=0.5))
    assert torch.equal(image, again_image)
    assert torch.equal(label, again_label)
    assert not torch.equal(image, augmented(augmenter_with(name, patch_size, seed=2, probability=0.5))[0])
    assert not torch.equal(image, augmented(augmenter_with(name, patch_size, probability=0.5), step=1)[0])


@pytest.mark.parametrize("off", [{"enabled": False}, {"probability": 0.0}], ids=str)
def test_disabled_it_changes_nothing(name, patch_size, off):
    augmenter = augmenter_with(name, patch_size, **off)
    batch = raw_batch(augmenter)
    assert batch.plain == tuple(range(N_SAMPLES))
    image, label = augmenter(batch, CPU)
    assert torch.equal(image, batch.plain_PCZYX)
    assert torch.equal(label, batch.plain_label_PZYX)


def test_it_keeps_shape_and_type_and_is_finite(name, patch_size):
    augmenter = augmenter_with(name, patch_size)
    batch = raw_batch(augmenter)
    before = batch.plain_PCZYX.clone(), batch.warped_WCZYX.clone()
    image, label = augmenter(batch, CPU)
    assert (image.shape, image.dtype) == ((N_SAMPLES, N_CHANNELS + 1, *patch_size), torch.float32)
    assert (label.shape, label.dtype) == ((N_SAMPLES, *patch_size), torch.uint8)
    assert torch.isfinite(image).all()
    assert torch.equal(batch.plain_PCZYX, before[0])
    assert torch.equal(batch.warped_WCZYX, before[1])


def test_image_and_label_stay_together(name, patch_size):
    """The mask, a channel of the image, is where the label is 1, but for interpolation at its border."""
    image, label = augmented(augmenter_with(name, patch_size))
    plain_image, plain_label = augmented(augmenter_with(name, patch_size, enabled=False))
    mask = image[:, -1]
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert set(label.unique().tolist()) <= {0, 1, IGNORE_INDEX}
    if issubclass(TRANSFORMS.resolve(name).cls, IntensityTransform):
        assert torch.equal(label, plain_label)
        assert torch.equal(mask, plain_image[:, -1])
    else:
        assert not torch.equal(label, plain_label)
        unlike = ((mask == 1) != (label == 1)).float().mean()
        moved = ((plain_image[:, -1] == 1) != (label == 1)).float().mean()
        assert unlike < 0.2 * moved


def test_a_sample_is_the_same_whatever_is_beside_it(name, patch_size):
    augmenter = augmenter_with(name, patch_size)
    image, label = augmented(augmenter)
    for part in (range(3), range(3, N_SAMPLES)):
        part_image, part_label = augmented(augmenter, indices=part)
        torch.testing.assert_close(part_image, image[list(part)], atol=1e-4, rtol=0)
        assert torch.equal(part_label, label[list(part)])


def test_it_never_makes_the_host_wait(name, patch_size):
    """A tensor of the meta device has no values: reading one on the host fails."""
    augmenter = augmenter_with(name, patch_size)
    image, label = augmenter(raw_batch(augmenter), "meta")
    assert (image.shape, label.shape) == ((N_SAMPLES, N_CHANNELS + 1, *patch_size), (N_SAMPLES, *patch_size))
