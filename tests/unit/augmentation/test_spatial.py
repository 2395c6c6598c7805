"""Rotation, scaling, mirroring: against scipy, and image against label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from decathlete.augmentation.batch import SpatialParams, collate
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.augmentation.spatial import apply_spatial, enclosing_size
from decathlete.augmentation.transforms.rotation import Rotation
from decathlete.augmentation.warp import warp
from decathlete.core.labels import IGNORE_INDEX

ALWAYS_WARPED = AugmentationConfig.model_validate({"rotation": {"probability": 1}, "scaling": {"probability": 1}})


def sampler(patch_size, config=ALWAYS_WARPED, seed=0):
    return Augmenter(config, patch_size=patch_size, seed=seed)


def smooth_volume(size, seed=0):
    """A sum of sines: smooth enough that linear interpolation is close to itself under other implementations."""
    generator = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.arange(n) for n in size], indexing="ij")
    return sum(np.sin(a * generator.uniform(0.1, 0.4) + generator.uniform(0, 6)) for a in axes).astype(np.float32)


def cut(volume, draw, patch_size):
    """The box of the draw's size with the volume's own centre."""
    starts = [(n - s) // 2 for n, s in zip(volume.shape, draw.size, strict=True)]
    return volume[tuple(slice(a, a + s) for a, s in zip(starts, draw.size, strict=True))]


@pytest.mark.parametrize("patch_size", [(16, 20, 12), (15, 17, 11), (4, 20, 20), (20, 16), (9, 30)])
@pytest.mark.parametrize("index", range(6))
def test_equals_scipy_affine_transform(patch_size, index):
    draw = sampler(patch_size).draw(3, index)
    volume = smooth_volume([p + 2 * max(patch_size) for p in patch_size])
    source = cut(volume, draw, patch_size)
    image, _ = warp(
        torch.tensor(source)[None, None], torch.zeros(1, *source.shape, dtype=torch.uint8), [draw], patch_size
    )

    matrix = np.array(draw.matrix)
    patch_centre, volume_centre = (np.array(patch_size) - 1) / 2, (np.array(volume.shape) - 1) / 2
    expected = affine_transform(
        volume, matrix, offset=volume_centre - matrix @ patch_centre, output_shape=patch_size, order=1
    )
    np.testing.assert_allclose(image[0, 0].numpy(), expected, atol=2e-4)


def test_samples_of_different_size_do_not_disturb_each_other():
    patch_size = (12, 10, 14)
    draws = [sampler(patch_size).draw(0, i) for i in range(5)]
    assert len({d.size for d in draws}) > 1
    images = [smooth_volume(d.size, seed=i)[None] for i, d in enumerate(draws)]
    labels = [(image[0] > 0).astype(np.uint8) for image in images]
    together, _ = apply_spatial(collate(0, range(5), draws, ["x"] * 5, images, labels), patch_size)
    for i in range(5):
        only = collate(0, [i], draws[i : i + 1], ["x"], images[i : i + 1], labels[i : i + 1])
        alone, _ = apply_spatial(only, patch_size)
        torch.testing.assert_close(together[i], alone[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("patch_size", [(16, 20, 12), (24, 20)])
def test_image_and_label_move_together(patch_size):
    config = AugmentationConfig.model_validate({"rotation": {"probability": 0.5}, "scaling": {"probability": 0.5}})
    draws = [sampler(patch_size, config).draw(0, i) for i in range(24)]
    assert len({d.flips for d in draws}) > 2
    assert {d.matrix is None for d in draws} == {True, False}
    images = [smooth_volume(d.size, seed=i) for i, d in enumerate(draws)]
    labels = [np.digitize(image, [-0.7, 0.0, 0.7]).astype(np.uint8) for image in images]
    batch = collate(0, range(24), draws, ["x"] * 24, [i[None] for i in images], labels)
    image, label = apply_spatial(batch, patch_size)
    again = np.digitize(image[:, 0].numpy(), [-0.7, 0.0, 0.7])
    wrong = again != label.numpy()
    # The nearest voxel's class may be the neighbouring one where the smooth image crosses a threshold, never farther.
    assert np.abs(again - label.numpy())[wrong].max() == 1
    assert wrong.mean() < 0.2
    plain = [i for i, d in enumerate(draws) if d.matrix is None]
    assert not wrong[plain].any()
    rolled = np.digitize(image.roll(2, -1)[:, 0].numpy(), [-0.7, 0.0, 0.7]) != label.numpy()
    assert rolled.mean() > 1.4 * wrong.mean()


def test_flips_alone_are_exact():
    patch_size = (4, 6, 5)
    image = np.random.default_rng(0).normal(size=(2, *patch_size)).astype(np.float32)
    label = np.random.default_rng(1).integers(0, 3, patch_size).astype(np.uint8)
    draw = SpatialParams(size=patch_size, flips=(True, False, True))
    image_B, label_B = apply_spatial(collate(0, [0], [draw], ["x"], [image], [label]), patch_size)
    np.testing.assert_array_equal(image_B[0], image[:, ::-1, :, ::-1])
    np.testing.assert_array_equal(label_B[0], label[::-1, :, ::-1])


def test_mirroring_inside_the_matrix_equals_a_flip():
    patch_size = (7, 10)
    for index in range(20):
        draw = sampler(patch_size).draw(0, index)
        axes = [a for a, flip in enumerate(draw.flips) if flip]
        unflipped = np.array(draw.matrix) @ np.diag([-1.0 if f else 1.0 for f in draw.flips])
        source = torch.tensor(smooth_volume(draw.size))[None, None]
        empty = torch.zeros(1, *draw.size, dtype=torch.uint8)
        plain = SpatialParams(size=draw.size, flips=(False, False), matrix=tuple(map(tuple, unflipped)))
        with_flip, _ = warp(source, empty, [draw], patch_size)
        without, _ = warp(source, empty, [plain], patch_size)
        torch.testing.assert_close(with_flip[0, 0], without[0, 0].flip(axes), atol=1e-5, rtol=0)


def test_labels_keep_their_values():
    patch_size = (12, 12)
    draw = sampler(patch_size).draw(0, 0)
    label = np.random.default_rng(0).choice([0, 1, 254, IGNORE_INDEX], draw.size).astype(np.uint8)
    _, warped = warp(torch.zeros(1, 1, *draw.size), torch.tensor(label)[None], [draw], patch_size)
    assert warped.dtype == torch.uint8
    assert set(warped.unique().tolist()) == {0, 1, 254, IGNORE_INDEX}


def test_the_cut_is_just_enough():
    patch_size = (16, 20, 12)
    for index in range(50):
        draw = sampler(patch_size).draw(0, index)
        reach = np.abs(np.array(draw.matrix)) @ ((np.array(patch_size) - 1) / 2)
        half = (np.array(draw.size) - 1) / 2
        assert (reach <= half + 1e-5).all()
        assert (reach > half - 1 - 1e-5).all()
        assert all((s - p) % 2 == 0 for s, p in zip(draw.size, patch_size, strict=True))
    assert enclosing_size(np.eye(3), patch_size) == patch_size
    assert max(enclosing_size(0.5 * np.eye(3), patch_size)) < 20


def test_a_patch_one_voxel_thick_is_warped_in_its_plane():
    patch_size = (1, 16, 16)
    draw = sampler(patch_size).draw(0, 0)
    assert draw.size[0] == 1
    source = torch.tensor(smooth_volume(draw.size))[None, None]
    image, _ = warp(source, torch.zeros(1, *draw.size, dtype=torch.uint8), [draw], patch_size)
    assert image.shape == (1, 1, 1, 16, 16)
    assert torch.isfinite(image).all()


@pytest.mark.parametrize(
    ("patch_size", "in_plane", "degrees"),
    [
        ((40, 56, 40), False, 30),
        ((16, 64, 64), True, 180),
        ((20, 60, 60), False, 30),
        ((56, 40), False, 180),
        ((64, 40), False, 15),
    ],
)
def test_rotation_follows_the_patch(patch_size, in_plane, degrees):
    assert Rotation.Settings().is_in_plane(patch_size) is in_plane
    assert Rotation.Settings().max_degrees(patch_size) == degrees
    assert Rotation.Settings(degrees=7).max_degrees(patch_size) == 7


@pytest.mark.parametrize(
    ("patch_size", "side_axis", "degrees"),
    [
        ((56, 40), 1, 30),
        ((56, 40), 0, 30),
        ((64, 40), 1, 15),
        ((16, 64, 64), 2, 30),
        ((16, 64, 64), 1, 30),
        ((16, 64, 64), 0, 180),  # sagittal slices: the plane has no left and right
        ((40, 56, 40), 2, 30),
    ],
)
def test_sides_of_mirror_pairs_are_not_turned_into_each_other(patch_size, side_axis, degrees):
    assert Rotation.Settings().max_degrees(patch_size, side_axis=side_axis) == degrees
    assert Rotation.Settings(degrees=90).max_degrees(patch_size, side_axis=side_axis) == 90


def test_an_anisotropic_patch_keeps_its_first_axis():
    for index in range(20):
        draw = sampler((8, 32, 32)).draw(0, index)
        first = np.abs(np.array(draw.matrix))
        np.testing.assert_array_equal(first[0], [1, 0, 0])
        np.testing.assert_array_equal(first[:, 0], [1, 0, 0])
        assert draw.size[0] == 8


def test_rotations_are_rotations():
    config = AugmentationConfig.model_validate({"rotation": {"probability": 1}, "scaling": {"enabled": False}})
    angles = []
    for index in range(200):
        matrix = np.array(sampler((16, 16, 16), config).draw(0, index).matrix)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        angles.append(np.degrees(np.arcsin(abs(matrix[2, 1]))))
    assert 25 < max(angles) <= 60


def test_frequencies():
    default = sampler((16, 16, 16), AugmentationConfig.default(3), seed=4)
    draws = [default.draw(step, index) for step in range(1000) for index in range(2)]
    assert np.mean([d.matrix is not None for d in draws]) == pytest.approx(1 - 0.8**2, abs=0.04)
    np.testing.assert_allclose(np.mean([d.flips for d in draws], axis=0), 0.5, atol=0.05)
    assert default.draw(5, 1) == sampler((16, 16, 16), AugmentationConfig.default(3), seed=4).draw(5, 1)
    assert default.draw(5, 1) != sampler((16, 16, 16), AugmentationConfig.default(3), seed=5).draw(5, 1)
