from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from decathlete.planning.plan import Resampling
from decathlete.preprocessing.interpolation import Taps, cubic, spline_matrix
from decathlete.preprocessing.resample import (
    resample_image,
    resample_label,
    resample_logits,
    resampled_shape,
    separated_axis,
)

SIZES = st.integers(1, 60)


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES)
def test_rows_of_the_spline_matrix_add_up_to_one(n_in, n_out):
    assert torch.allclose(spline_matrix(n_in, n_out).sum(dim=1), torch.ones(n_out), atol=1e-5)


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize(("n_in", "n_out"), [(300, 240), (90, 331), (400, 30), (7, 200), (200, 7)])
def test_blocks_of_a_long_axis_are_the_whole_matrix(n_in, n_out, axis):
    shape = [2, 3, 4, 5]
    shape[axis] = n_in
    x = torch.rand(shape, generator=torch.Generator().manual_seed(n_in))
    expected = torch.tensordot(spline_matrix(n_in, n_out), x, dims=([1], [axis])).movedim(0, axis)
    assert torch.allclose(cubic(x, n_out, axis), expected, atol=3e-6)


def test_a_voxel_of_a_long_axis_costs_no_more_than_one_of_a_short_axis():
    def operations_per_voxel(n):
        with FlopCounterMode(display=False) as counter:
            cubic(torch.zeros(1, n, 2, 2), n * 4 // 5, 1)
        return counter.get_total_flops() / n

    assert operations_per_voxel(4000) < 1.2 * operations_per_voxel(400)


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES)
def test_taps_stay_inside_and_are_symmetric(n_in, n_out):
    taps = Taps.linear(n_in, n_out)
    ramp = torch.arange(n_in, dtype=torch.float32)
    assert taps.low.min() >= 0
    assert taps.high.max() < n_in
    assert torch.allclose(taps(ramp, 0) + taps(ramp.flip(0), 0), torch.full((n_out,), n_in - 1.0), atol=1e-4)
    assert torch.allclose(taps(ramp, 0), taps(ramp.flip(0), 0).flip(0), atol=1e-4)


def test_equal_shapes_are_not_touched():
    image, label = torch.randn(1, 4, 5, 6), torch.randint(0, 3, (4, 5, 6), dtype=torch.uint8)
    assert resample_image(image, (4, 5, 6), order=3) is image
    assert resample_label(label, (4, 5, 6), 3) is label
    assert torch.equal(resample_logits(image, (4, 5, 6)), image)


def test_the_range_is_kept_per_channel():
    image = torch.zeros(2, 12, 12, 12)
    image[0, 6:] = 1
    image[1, :, 6:] = 1000
    out = resample_image(image, (17, 17, 17), order=3)
    assert out[0].min() == 0
    assert out[0].max() == 1
    assert out[1].max() == 1000


def test_the_separated_axis_repeats_slices():
    image = torch.randn(1, 5, 8, 8)
    out = resample_image(image, (10, 8, 8), order=3, separate_axis=0)
    assert torch.equal(out, image.repeat_interleave(2, dim=1))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_logits_take_the_nearest_along_any_separated_axis(axis):
    logits = torch.randn(3, 4, 4, 4)
    shape = [4, 4, 4]
    shape[axis] = 8
    out = resample_logits(logits, tuple(shape), separate_axis=axis)
    assert torch.equal(out, logits.repeat_interleave(2, dim=axis + 1))


def test_half_precision_logits_come_back_as_float32():
    out = resample_logits(torch.randn(2, 4, 4, 4).half(), (4, 6, 6))
    assert out.dtype == torch.float32


def test_labels_keep_to_their_values_and_ignore_is_one_of_them():
    label = torch.zeros(10, 10, 10, dtype=torch.uint8)
    label[2:8, 2:8, 2:5] = 3
    label[2:8, 2:8, 5:8] = 255
    out = resample_label(label, (20, 20, 20), 4)
    assert set(out.unique().tolist()) == {0, 3, 255}
    assert (out == 3).sum() == (out == 255).sum()
    assert abs(int((out == 3).sum()) / 8 - 108) < 20


def test_an_empty_label_stays_empty_and_a_vanishing_class_does_no_harm():
    label = torch.zeros(30, 30, 30, dtype=torch.uint8)
    assert not resample_label(label, (7, 8, 9), 2).any()
    label[0, 0, 0] = 1
    assert not resample_label(label, (3, 3, 3), 2).any()


def test_shape_after_resampling():
    assert resampled_shape((10, 20, 30), (5.0, 1.0, 1.0), (2.5, 0.8, 1.0)) == (20, 25, 30)
    assert resampled_shape((1, 2, 3), (1.0, 1.0, 1.0), (9.0, 9.0, 9.0)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("mode", "spacing", "target", "axis"),
    [
        ("auto", (5, 1, 1), (1, 1, 1), 0),
        ("auto", (1, 1, 1), (1, 1, 5), 2),
        ("auto", (1, 1, 1), (2, 1, 1), None),
        ("auto", (3, 1, 1), (3, 1, 1), None),
        ("auto", (5, 5, 1), (5, 5, 1), None),
        ("never", (9, 1, 1), (9, 1, 1), None),
        ("always", (1, 1.2, 1), (1, 1, 1), 1),
        ("auto", (1, 5, 1), (4, 1, 1), 1),
        ("auto", (0.2, 1, 1), (9, 1, 1), None),
        ("auto", (3.000001, 1, 1), (3, 1, 1), None),
        ("always", (1, 1, 1), (9, 1, 1), None),
    ],
)
def test_which_axis_is_separated(mode, spacing, target, axis):
    assert separated_axis(Resampling(separate_axis=mode), spacing, target) == axis
