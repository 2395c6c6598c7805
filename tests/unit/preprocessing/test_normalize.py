from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.preprocessing.normalize import normalize, object_mask

ZSCORE = NORMALIZATIONS.settings("zscore")


def test_ct_is_clipped_and_standardised():
    image = np.array([-1000, 0, 50, 3000], np.float32).reshape(1, 1, 1, 4)
    scheme = NORMALIZATIONS.settings({"name": "ct", "clip_low": -100, "clip_high": 200, "mean": 50, "std": 25})
    assert normalize(image, [scheme], None).ravel().tolist() == [-6, -2, 0, 6]


def test_zscore_of_each_channel_alone():
    image = np.random.default_rng(0).normal([[[[5]]], [[[1e6]]]], [[[[2]]], [[[1e4]]]], (2, 6, 7, 8)).astype(np.float32)
    out = normalize(image, [ZSCORE] * 2, None)
    assert out.dtype == np.float32
    assert np.allclose(out.mean(axis=(1, 2, 3)), 0, atol=1e-3)
    assert np.allclose(out.std(axis=(1, 2, 3)), 1, atol=1e-3)


def test_zscore_of_the_object_only():
    image = np.zeros((1, 10, 10, 10), np.float32)
    image[0, 2:8, 2:8, 2:8] = np.random.default_rng(0).normal(100, 10, (6, 6, 6))
    image[0, 5, 5, 5] = 0  # a hole belongs to the object
    mask = object_mask(image)
    assert mask.sum() == 216
    out = normalize(image, [ZSCORE.revised(nonzero_only=True)], mask)
    assert abs(out[0][mask].mean()) < 1e-5
    assert abs(out[0][mask].std() - 1) < 1e-5
    assert not out[0][~mask].any()
    assert out[0, 5, 5, 5] < -3


def test_a_hole_in_a_single_slice_is_filled_and_a_bay_is_not():
    image = np.ones((1, 1, 8, 8), np.float32)
    image[0, 0, 3:5, 3:5] = 0
    image[0, 0, 0:2, 6] = 0
    mask = object_mask(image)
    assert mask[0, 3:5, 3:5].all()
    assert not mask[0, 0:2, 6].any()


@pytest.mark.parametrize("shape", [(6, 7, 8), (1, 9, 9), (9, 1, 9), (9, 9, 1), (1, 1, 9), (2, 9, 9)])
def test_nnunets_mask_fills_holes_of_volumes_alone(shape):
    rng = np.random.default_rng(4)
    for density in (0.3, 0.7, 0.9):
        image = (rng.random((2, *shape)) < density / 2).astype(np.float32)
        expected = ndimage.binary_fill_holes((image != 0).any(axis=0))
        assert np.array_equal(object_mask(image, fill_slice_holes=False), expected)


def test_rescale_and_none():
    image = np.array([2, 4, 6], np.float32).reshape(1, 1, 1, 3)
    assert normalize(image, [NORMALIZATIONS.settings("rescale")], None).ravel().tolist() == [0, 0.5, 1]
    assert normalize(image, [NORMALIZATIONS.settings("none")], None).ravel().tolist() == [2, 4, 6]


@pytest.mark.parametrize("value", [0.0, 7.0, 0.1, 1.7e6])
@pytest.mark.parametrize("config", [{"name": "zscore"}, {"name": "zscore", "nonzero_only": True}, {"name": "rescale"}])
def test_a_constant_image_becomes_zero(value, config):
    image = np.full((1, 5, 6, 7), value, np.float32)
    assert not normalize(image, [NORMALIZATIONS.settings(config)], object_mask(image)).any()
