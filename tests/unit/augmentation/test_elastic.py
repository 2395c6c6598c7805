"""Elastic deformation: one warp for image and label, no folds, repeatable, and nothing changes where it is off."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from decathlete.augmentation.batch import collate
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.displacement import Displacement, n_control_points, spline_weights
from decathlete.augmentation.pipeline import Augmenter
from decathlete.augmentation.spatial import apply_spatial
from decathlete.core.labels import IGNORE_INDEX
from decathlete.errors import OptionError
from decathlete.loading.dali import check_dali

PATCHES = [(20, 24, 18), (6, 24, 24), (24, 30)]


def augmenter_of(patch_size, *, seed=0, probability=1.0, **changes):
    config = AugmentationConfig.none().revised(elastic={"probability": probability}, **changes)
    return Augmenter(config, patch_size=patch_size, seed=seed)


def batch_of(augmenter, indices, step=0):
    """Smooth random images, and their thresholded label with an ignored corner."""
    draws = [augmenter.draw(step, index) for index in indices]
    noise = [np.random.default_rng(index).normal(size=draw.size) for index, draw in zip(indices, draws, strict=True)]
    images = [ndimage.gaussian_filter(n, 3).astype(np.float32)[None] for n in noise]
    labels = [(image[0] > 0).astype(np.uint8) for image in images]
    for label in labels:
        label[tuple(slice(n // 3) for n in label.shape)] = IGNORE_INDEX
    return collate(step, indices, draws, [str(i) for i in indices], images, labels)


def source_places(draw, patch_size):
    """Source coordinates of each voxel of the patch in the cut box, voxels: [D, *patch_size]."""
    offset = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in patch_size], indexing="ij"))
    for displacement in draw.displacements:
        offset = offset + displacement.at_voxels(patch_size, torch.device("cpu")).numpy()
    centre = ((np.array(draw.size) - 1) / 2).reshape(-1, *[1] * len(patch_size))
    return np.tensordot(np.array(draw.matrix), offset, 1) + centre


def test_weights_reproduce_lines_and_add_up_to_one():
    for n, spacing in ((17, 4.25), (3, 0.75), (1, 0.25), (30, 30.0)):
        weights_NK = spline_weights(n, spacing)
        assert weights_NK.shape == (n, n_control_points(n, spacing))
        np.testing.assert_allclose(weights_NK.sum(1), 1)
        np.testing.assert_allclose(weights_NK @ ((np.arange(weights_NK.shape[1]) - 1) * spacing), np.arange(n))


@pytest.mark.parametrize("patch_size", PATCHES, ids=str)
@pytest.mark.parametrize("rotated", [False, True], ids=["alone", "with rotation and scaling"])
def test_image_and_label_follow_one_field(patch_size, rotated):
    always = {"probability": 1.0, "enabled": True}
    others = {"rotation": always, "scaling": always, "mirroring": {"enabled": True}} if rotated else {}
    augmenter = augmenter_of(patch_size, **others)
    batch = batch_of(augmenter, [3, 4, 5])
    image_BCZYX, label_BZYX = apply_spatial(batch, patch_size)
    for sample, draw in enumerate(batch.draws):
        box = tuple(slice(n) for n in draw.size)
        places = source_places(draw, patch_size)
        expected = ndimage.map_coordinates(batch.warped_WCZYX[sample, 0][box].numpy(), places, order=1, mode="nearest")
        np.testing.assert_allclose(image_BCZYX[sample, 0].numpy(), expected, atol=2e-3)
        label = batch.warped_label_WZYX[sample][box].numpy()
        nearest = ndimage.map_coordinates(label, places, order=0, mode="nearest")
        assert (label_BZYX[sample].numpy() != nearest).mean() < 0.002  # ties of rounding
        assert set(np.unique(label_BZYX[sample])) <= {0, 1, IGNORE_INDEX}


@pytest.mark.parametrize("patch_size", PATCHES, ids=str)
def test_the_cut_holds_every_voxel_that_is_read(patch_size):
    augmenter = augmenter_of(patch_size, rotation={"probability": 1.0, "enabled": True})
    for index in range(20):
        draw = augmenter.draw(0, index)
        places = source_places(draw, patch_size).reshape(len(patch_size), -1)
        assert (places.min(1) >= -1e-4).all()
        assert (places.max(1) <= np.array(draw.size) - 1 + 1e-4).all()


@pytest.mark.parametrize("patch_size", [(20, 24, 18), (24, 30)], ids=str)
def test_the_strongest_deformation_does_not_fold(patch_size):
    config = AugmentationConfig.none().revised(elastic={"probability": 1.0, "between": (0.4, 0.4)})
    augmenter = Augmenter(config, patch_size=patch_size, seed=1)
    for index in range(20):
        places = source_places(augmenter.draw(0, index), patch_size)
        gradients = [np.gradient(p) for p in places]
        jacobian = np.moveaxis(np.array(gradients), (0, 1), (-2, -1))
        assert np.linalg.det(jacobian).min() > 0


def test_the_worst_control_points_do_not_fold_the_field_but_larger_ones_would():
    """Neighbours that approach each other as much as they can, along one axis."""
    signs = np.where(np.arange(n_control_points(40, 10.0)) % 2, -1.0, 1.0)
    for share, folds in ((0.4, False), (1.1, True)):
        field = Displacement(points_DZYX=share * 10 * signs[None], spacing=(10.0,)).at_voxels(
            (40,), torch.device("cpu")
        )
        assert bool((1 + np.diff(field[0].numpy()) <= 0).any()) is folds


def test_coarse_slices_are_deformed_in_their_plane_alike():
    draw = augmenter_of((6, 24, 24)).draw(0, 0)
    (displacement,) = draw.displacements
    field = displacement.at_voxels((6, 24, 24), torch.device("cpu"))
    assert draw.size[0] == 6
    assert (field[0] == 0).all()
    assert field[1:].abs().max() > 0.1
    torch.testing.assert_close(field, field[:, :1].expand_as(field), rtol=0, atol=1e-5)


def test_draws_repeat_by_seed_step_and_index():
    def points(seed, step, index):
        return augmenter_of((24, 30), seed=seed).draw(step, index).displacements[0].points_DZYX

    np.testing.assert_array_equal(points(0, 3, 1), points(0, 3, 1))
    for other in ((1, 3, 1), (0, 4, 1), (0, 3, 2)):
        assert not np.array_equal(points(0, 3, 1), points(*other))


@pytest.mark.parametrize("patch_size", PATCHES, ids=str)
def test_it_is_off_by_default_and_leaves_the_others_as_they_were(patch_size):
    default = AugmentationConfig.default(len(patch_size))
    assert "elastic" not in default.names
    assert "elastic" not in AugmentationConfig("heavy").names
    without = Augmenter(default, patch_size=patch_size, seed=2)
    off = Augmenter(default.revised(elastic={"enabled": False}), patch_size=patch_size, seed=2)
    sometimes = Augmenter(default.revised(elastic={"probability": 0.5}), patch_size=patch_size, seed=2)
    n_equal = 0
    for index in range(40):
        draw = without.draw(0, index)
        assert off.draw(0, index) == draw
        n_equal += sometimes.draw(0, index) == draw
    assert 5 < n_equal < 35
    image, label = without(batch_of(without, range(6)), "cpu")
    same_image, same_label = off(batch_of(off, range(6)), "cpu")
    assert torch.equal(image, same_image)
    assert torch.equal(label, same_label)


def test_displacements_that_fold_are_refused():
    with pytest.raises(ValueError, match=r"at most 0\.4"):
        AugmentationConfig({"elastic": {"between": (0.1, 0.5)}})


def test_dali_says_that_it_has_no_elastic_deformation():
    config = AugmentationConfig.recipe(3).revised(elastic={"probability": 0.5})
    with pytest.raises(OptionError, match="no elastic"):
        check_dali(config)
