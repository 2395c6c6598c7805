"""The corruption of the masks of a cascade's previous stage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from decathlete.augmentation.batch import SpatialParams, collate
from decathlete.augmentation.config import CASCADE_TRANSFORMS, AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.augmentation.transforms import TRANSFORMS, Patch
from decathlete.augmentation.transforms._masks import MaskTransform
from decathlete.augmentation.transforms.mask_components import MaskComponents
from decathlete.augmentation.transforms.mask_morphology import MaskMorphology


def cube(shape: tuple[int, ...] = (16, 16, 16), low: int = 5, high: int = 10) -> torch.Tensor:
    mask = torch.zeros(shape)
    mask[(slice(low, high),) * len(shape)] = 1
    return mask


def results(transform: MaskMorphology, mask: torch.Tensor) -> list[torch.Tensor]:
    """The different masks that 40 draws make of one mask: one for each operation, all but surely (40 draws of 4)."""
    changed = [transform.change(mask, np.random.default_rng(seed)) for seed in range(40)]
    return [mask for i, mask in enumerate(changed) if not any(torch.equal(mask, other) for other in changed[:i])]


@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 16)])
def test_the_four_operations_are_scipys_with_a_box(shape):
    transform = MaskMorphology(MaskMorphology.Settings(radius=(2, 2)), Patch(size=shape))
    mask = cube(shape)
    mask[(0,) * len(shape)] = 1  # removed by opening and erosion, kept by closing
    box = np.ones((5,) * len(shape))

    def dilated(mask: np.ndarray) -> np.ndarray:
        return ndimage.binary_dilation(mask, box)

    def eroded(mask: np.ndarray) -> np.ndarray:
        return ndimage.binary_erosion(mask, box, border_value=1)

    truth = mask.numpy()
    expected = [dilated(truth), eroded(truth), dilated(eroded(truth)), eroded(dilated(truth))]
    found = results(transform, mask)
    assert sorted(m.flatten().tolist() for m in found) == sorted(e.ravel().astype(float).tolist() for e in expected)


def test_coarse_slices_do_not_grow_into_their_neighbours():
    transform = MaskMorphology(MaskMorphology.Settings(radius=(2, 2)), Patch(size=(16, 16, 16), in_plane=True))
    (grown,) = [mask for mask in results(transform, cube()) if mask.sum() > cube().sum()]
    assert grown.sum(dim=(1, 2)).tolist() == [81 if 5 <= z < 10 else 0 for z in range(16)]


def test_one_small_component_is_removed():
    transform = MaskComponents(MaskComponents.Settings(), Patch(size=(16, 16, 16)))
    mask = cube(low=1, high=4) + cube(low=8, high=10)
    sizes = {int(transform.change(mask, np.random.default_rng(seed)).sum()) for seed in range(20)}
    assert sizes == {27, 8}
    large = torch.ones(16, 16, 16)
    assert torch.equal(transform.change(large, np.random.default_rng(0)), large)
    nothing = torch.zeros(16, 16, 16)
    assert torch.equal(transform.change(nothing, np.random.default_rng(0)), nothing)


def test_masks_that_do_not_overlap_do_not_overlap_afterwards():
    settings = MaskMorphology.Settings(probability=1, radius=(3, 3))
    transform = MaskMorphology(settings, Patch(size=(16, 16, 16)))
    changed = 0
    for seed in range(10):
        masks = torch.stack([cube(low=2, high=8), cube(low=8, high=14)])
        before = masks.clone()
        transform(masks, np.random.default_rng(seed))
        assert int(masks.sum(dim=0).max()) <= 1
        changed += not torch.equal(masks, before)
    assert changed > 5


def test_only_the_masks_of_the_previous_stage_are_changed_and_repeatably():
    config = AugmentationConfig.none().revised(
        mask_morphology={"probability": 1.0}, mask_components={"probability": 1.0}
    )
    image = np.random.default_rng(0).normal(size=(4, 16, 16, 16)).astype(np.float32)
    image[1:] = cube().numpy()  # the foreground, then two structures
    draw = SpatialParams(size=(16, 16, 16), flips=(False,) * 3)

    def augmented(step: int) -> torch.Tensor:
        batch = collate(step, range(2), [draw] * 2, ["a", "b"], [image, image], [np.zeros((16, 16, 16), np.uint8)] * 2)
        augmenter = Augmenter(config, patch_size=(16, 16, 16), seed=3, n_masks=3, n_previous=2)
        return augmenter(batch, "cpu")[0]

    first = augmented(5)
    assert torch.equal(first, augmented(5))
    assert torch.equal(first[:, :2], torch.from_numpy(image[:2]).expand(2, -1, -1, -1, -1))
    assert not torch.equal(first[:, 2:], torch.from_numpy(image[2:]).expand(2, -1, -1, -1, -1))
    assert set(first[:, 2:].unique().tolist()) <= {0.0, 1.0}


def test_a_cascade_adds_them_and_keeps_the_users_settings():
    assert not set(CASCADE_TRANSFORMS) & set(AugmentationConfig.default(3).names)
    assert AugmentationConfig.default(3).with_corrupted_masks()["mask_morphology"].chance == 0.4
    own = AugmentationConfig({"mask_morphology": {"probability": 0.1}})
    assert own.with_corrupted_masks()["mask_morphology"].probability == 0.1
    assert AugmentationConfig.none().with_corrupted_masks(source=own)["mask_morphology"].probability == 0.1


def test_a_cascade_adds_transforms_of_masks_alone():
    assert all(issubclass(TRANSFORMS.resolve(name).cls, MaskTransform) for name in CASCADE_TRANSFORMS)
