"""Resampling against scikit-image, whose results are taken as the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.transform import resize

from decathlete.preprocessing.resample import resample_image, resample_label, resample_logits

PAIRS = [
    ((12, 40, 33), (20, 31, 50)),
    ((30, 24, 20), (11, 24, 20)),
    ((5, 64, 48), (5, 80, 37)),
    ((1, 33, 27), (1, 20, 41)),
    ((1, 7, 9), (3, 14, 4)),
    ((2, 3, 4), (9, 8, 7)),
    ((40, 40, 40), (3, 2, 1)),
]


def _reference(volume, shape, order):
    return resize(volume.astype(np.float64), shape, order=order, mode="edge", anti_aliasing=False)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_image_equals_skimage(before, after, order):
    image = np.random.default_rng(0).normal(100, 40, (2, *before)).astype(np.float32)
    ours = resample_image(torch.from_numpy(image), after, order=order).numpy()
    assert ours.shape == (2, *after)
    for channel, expected in zip(ours, (_reference(c, after, order) for c in image), strict=True):
        assert np.abs(channel - expected).max() < 1e-4 * np.ptp(image)


def test_image_equals_skimage_slice_by_slice_and_takes_the_nearest_slice():
    image = np.random.default_rng(1).normal(size=(1, 7, 30, 26)).astype(np.float32)
    ours = resample_image(torch.from_numpy(image), (12, 41, 20), order=3, separate_axis=0).numpy()[0]
    slices = np.stack([_reference(s, (41, 20), 3) for s in image[0]])
    nearest = np.floor((np.arange(12) + 0.5) * 7 / 12).astype(int)
    expected = slices[nearest]
    assert np.abs(ours - expected).max() < 1e-4 * np.ptp(image)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_labels_equal_skimage_per_class(before, after):
    generator = np.random.default_rng(2)
    label = generator.integers(0, 4, [max(1, n // 2) for n in before]).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    label = label[: before[0], : before[1], : before[2]].astype(np.uint8)
    before = label.shape
    ours = resample_label(torch.from_numpy(label), after, 4).numpy()
    shares = np.stack([_reference(label == value, after, 1) for value in range(4)])
    clear = np.sort(shares, axis=0)[-1] - np.sort(shares, axis=0)[-2] > 1e-5
    assert np.array_equal(ours[clear], shares.argmax(axis=0)[clear])


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_logits_equal_skimage_linear(before, after):
    logits = np.random.default_rng(3).normal(size=(3, *before)).astype(np.float32)
    ours = resample_logits(torch.from_numpy(logits), after).numpy()
    for channel, expected in zip(ours, (_reference(c, after, 1) for c in logits), strict=True):
        assert np.abs(channel - expected).max() < 1e-4 * np.ptp(logits)
