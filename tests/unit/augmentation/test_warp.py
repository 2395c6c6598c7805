"""Warping volumes on a CPU: as folded images it is what ``grid_sample`` makes of the volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from decathlete.augmentation.batch import SpatialParams
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.device import to_device
from decathlete.augmentation.fast_grid_sample import is_in_plane
from decathlete.augmentation.pipeline import Augmenter
from decathlete.augmentation.warp import grid_affines, sampling_grid, warp

WARPED = AugmentationConfig.model_validate({"rotation": {"probability": 1}, "scaling": {"probability": 1}})


def draws_for(patch_size, n):
    augmenter = Augmenter(WARPED, patch_size=patch_size, seed=1)
    return [augmenter.draw(0, i) for i in range(n)]


def sources(draw, n_channels=2, seed=0):
    """Noise, smoothed over three voxels, and which of three classes it is."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, n_channels, *(n + 2 for n in draw.size), generator=generator)
    image = F.avg_pool3d(noise, 3, 1) * 5
    return image, torch.bucketize(image[:, 0], torch.tensor([-0.5, 0.5])).to(torch.uint8)


def by_grid_sample(image, label, draw, patch_size):
    affine = to_device(grid_affines([draw], tuple(image.shape[2:])), torch.device("cpu"))
    grid = sampling_grid(affine, patch_size)
    warped = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)
    nearest = F.grid_sample(label[None].float(), grid, mode="nearest", padding_mode="border", align_corners=True)
    return warped, nearest[0]


@pytest.mark.parametrize(
    ("patch_size", "tolerance"),
    [((16, 20, 12), 3e-4), ((2, 9, 7), 3e-4), ((20, 1, 8), 3e-4), ((9, 8, 1), 3e-4), ((64, 96, 96), 5e-3)],
)
def test_volumes_are_what_grid_sample_makes_of_them(patch_size, tolerance):
    """But for the rounding of rows, which grows with planes times rows."""
    for seed, draw in enumerate(draws_for(patch_size, 3)):
        image, label = sources(draw, seed=seed)
        expected_image, expected_label = by_grid_sample(image, label, draw, patch_size)
        found_image, found_label = warp(image, label, [draw], patch_size)
        torch.testing.assert_close(found_image, expected_image, atol=tolerance, rtol=0)
        assert (found_label == expected_label).float().mean() > 0.995, "ties between two voxels"
        assert found_label.dtype == torch.uint8


def test_a_volume_of_two_rows():
    draw = SpatialParams(size=(2, 1, 3), flips=(False,) * 3, matrix=((0.5, 0, 0), (0, 1.0, 0), (0, 0, 0.5)))
    image = torch.tensor([[[[[0.0, 1, 2]], [[10.0, 11, 12]]]]])
    warped, _ = warp(image, torch.zeros(1, 2, 1, 3, dtype=torch.uint8), [draw], (2, 1, 3))
    expected = torch.tensor([[[[[3.0, 3.5, 4.0]], [[8.0, 8.5, 9.0]]]]])
    torch.testing.assert_close(warped, expected, atol=1e-4, rtol=0)


def test_planes_that_stay_planes():
    patch_size = (5, 40, 36)
    draws = draws_for(patch_size, 6)
    assert {draw.flips[0] for draw in draws} == {True, False}
    for draw in draws:
        assert is_in_plane(np.column_stack([np.array(draw.matrix), (np.array(draw.size) - 1) / 2]))
        image, label = sources(draw)
        expected_image, expected_label = by_grid_sample(image, label, draw, patch_size)
        found_image, found_label = warp(image, label, [draw], patch_size)
        torch.testing.assert_close(found_image, expected_image, atol=3e-4, rtol=0)
        assert (found_label == expected_label).float().mean() > 0.995


@pytest.mark.parametrize("patch_size", [(12, 10, 14), (4, 30, 28)])
def test_a_sample_is_the_same_to_the_bit_whatever_is_beside_it(patch_size):
    draws = draws_for(patch_size, 3)
    common = tuple(max(draw.size[axis] for draw in draws) for axis in range(3))
    assert any(draw.size != common for draw in draws)
    made = [sources(draw, seed=i) for i, draw in enumerate(draws)]
    images, labels = torch.full((3, 2, *common), 1e6), torch.full((3, *common), 9, dtype=torch.uint8)
    for i, (image, label) in enumerate(made):
        box = tuple(slice(n) for n in image.shape[2:])
        images[i, :, *box], labels[i, *box] = image[0], label[0]
    together_image, together_label = warp(images, labels, draws, patch_size)
    for i, (image, label) in enumerate(made):
        alone_image, alone_label = warp(image, label, [draws[i]], patch_size)
        assert torch.equal(together_image[i], alone_image[0])
        assert torch.equal(together_label[i], alone_label[0])


def test_a_single_plane_is_no_volume_to_fold():
    draw = SpatialParams(size=(1, 6, 6), flips=(False,) * 3, matrix=((1.0, 0, 0), (0, 0.0, -1.0), (0, 1.0, 0.0)))
    image = torch.arange(36.0).view(1, 1, 1, 6, 6)
    warped, label = warp(image, image[0].to(torch.uint8), [draw], (1, 6, 6))
    torch.testing.assert_close(warped[0, 0, 0], image[0, 0, 0].rot90(-1), atol=1e-4, rtol=0)
    assert torch.equal(label[0, 0], warped[0, 0, 0].round().to(torch.uint8))
