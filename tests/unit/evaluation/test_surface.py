"""Surfaces by hand: where one can count."""

from __future__ import annotations

import numpy as np
import pytest

from decathlete.core.geometry import Triple
from decathlete.evaluation.mask_pair import MaskPair
from decathlete.evaluation.metrics import make_metrics
from decathlete.evaluation.overlap import count_overlap, joint_box
from decathlete.evaluation.surface import measure_surface_distances, surface


def value(metric: str, prediction: np.ndarray, truth: np.ndarray, spacing: Triple = (1, 1, 1), **settings: float):
    (made,) = make_metrics([{"name": metric, **settings}])
    return made.score(MaskPair(prediction, truth, spacing_ZYX=spacing))


def block(shape: tuple[int, int, int], start: tuple[int, int, int], stop: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def test_overlap_of_two_blocks() -> None:
    blocks = block((4, 4, 4), (0, 0, 0), (2, 2, 2)), block((4, 4, 4), (1, 0, 0), (3, 2, 2))
    counts = count_overlap(*blocks)
    assert (counts.n_prediction, counts.n_truth, counts.n_both) == (8, 8, 4)
    assert value("dice", *blocks) == pytest.approx(0.5)
    assert value("iou", *blocks) == pytest.approx(1 / 3)


def test_overlap_of_nothing_is_undefined() -> None:
    nothing = np.zeros((2, 2, 2), bool)
    assert value("dice", nothing, nothing) is None
    assert value("iou", nothing, nothing) is None


def test_surface_is_the_shell_of_a_block() -> None:
    shell = surface(block((7, 7, 7), (1, 1, 1), (6, 6, 6)))
    assert shell.sum() == 5**3 - 3**3


def test_border_of_the_volume_is_surface() -> None:
    assert surface(np.ones((5, 5, 5), bool)).sum() == 5**3 - 3**3


def test_surface_of_a_single_slice_is_its_outline() -> None:
    assert surface(block((1, 9, 9), (0, 2, 2), (1, 7, 7))).sum() == 5**2 - 3**2


def test_surface_leaves_the_mask_alone() -> None:
    mask = block((5, 5, 5), (1, 1, 1), (4, 4, 4))
    before = mask.copy()
    surface(mask)
    np.testing.assert_array_equal(mask, before)


def test_shift_is_measured_in_mm_along_its_axis() -> None:
    truth = block((20, 8, 8), (4, 2, 2), (5, 6, 6))
    shifted = block((20, 8, 8), (7, 2, 2), (8, 6, 6))
    masks = shifted, truth, (2.5, 1.0, 1.0)
    assert value("hd95_mm", *masks) == pytest.approx(7.5)
    assert value("nsd", *masks, tolerance_mm=7.4) == 0
    assert value("nsd", *masks, tolerance_mm=7.5) == 1


def test_tolerance_holds_against_rounding() -> None:
    truth = block((30, 3, 3), (5, 1, 1), (6, 2, 2))
    moved = block((30, 3, 3), (15, 1, 1), (16, 2, 2))
    assert value("nsd", moved, truth, (0.1, 0.1, 0.1), tolerance_mm=1.0) == 1


def test_hd95_takes_the_worse_direction() -> None:
    truth = block((40, 3, 3), (0, 1, 1), (1, 2, 2))
    more = truth | block((40, 3, 3), (30, 1, 1), (31, 2, 2))
    assert value("hd95_mm", more, truth) == pytest.approx(np.percentile([0, 30], 95))


def test_flat_mask_in_a_thick_volume_keeps_both_faces() -> None:
    flat = block((9, 9, 9), (4, 2, 2), (5, 7, 7))
    distances = measure_surface_distances(flat, flat, (1, 1, 1))
    assert distances.truth_to_prediction.size == 25


def test_one_side_empty_has_no_distances() -> None:
    nothing, something = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    for masks in ((nothing, something), (something, nothing)):
        with pytest.raises(ValueError, match="no surface"):
            _ = MaskPair(*masks).surface_distances


def test_joint_box_has_its_margin_inside_the_grid() -> None:
    box = joint_box(block((9, 9, 1), (0, 3, 0), (2, 4, 1)), block((9, 9, 1), (4, 3, 0), (5, 4, 1)), margin=1)
    assert (box.start, box.stop) == ((0, 2, 0), (6, 5, 1))
