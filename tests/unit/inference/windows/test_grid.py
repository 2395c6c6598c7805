import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decathlete.inference.windows.grid import WindowGrid, importance, importance_profile, window_starts

sizes = st.integers(1, 200)
patches = st.integers(1, 64)
overlaps = st.floats(0, 0.9)


@given(sizes, patches, overlaps)
def test_windows_cover_an_axis_from_border_to_border(size, patch, overlap):
    starts = window_starts(size, patch, overlap)
    covered = {v for s in starts for v in range(s, s + patch)}
    assert covered == set(range(max(size, patch)))
    assert starts[0] == 0
    assert starts[-1] == max(size - patch, 0)
    assert list(starts) == sorted(set(starts))


@given(sizes, patches, overlaps)
def test_neighbours_share_the_overlap(size, patch, overlap):
    starts = window_starts(size, patch, overlap)
    step = max(1.0, patch * (1 - overlap))
    assert all(b - a < step + 1 for a, b in itertools.pairwise(starts))


def test_known_starts():
    assert window_starts(100, 40, 0.5) == (0, 20, 40, 60)
    assert window_starts(101, 40, 0.5) == (0, 15, 30, 46, 61)
    assert window_starts(80, 40, 0) == (0, 40)
    assert window_starts(30, 40, 0.5) == (0,)
    assert window_starts(5, 1, 0.5) == (0, 1, 2, 3, 4)


def test_gaussian_importance_peaks_in_the_centre_and_never_vanishes():
    weights = importance((17, 9, 64), "gaussian")
    assert weights.shape == (17, 9, 64)
    assert weights.max() == weights[8, 4, 32] == 1
    assert weights.min() > 1e-12
    assert torch.equal(weights[:, :, 32], weights[:, :, 32].flip(0, 1))
    sigma = 17 / 8
    profile = importance_profile(17, "gaussian")
    assert profile[10] == pytest.approx(torch.exp(torch.tensor(-0.5 * (2 / sigma) ** 2)).item(), rel=1e-6)


def test_constant_importance():
    assert torch.equal(importance((3, 4), "constant"), torch.ones(3, 4))


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_weight_sums_are_the_sum_of_all_windows(blend):
    grid = WindowGrid(shape=(20, 13, 5), patch=(8, 6, 7), overlap=0.4, blend=blend)
    total = torch.zeros(grid.padded)
    for box in grid.boxes:
        total[box.slices] += importance(grid.patch, blend)
    z, y, x = grid.weight_sums()
    torch.testing.assert_close(z[:, None, None] * y[:, None] * x, total)


def test_small_volumes_are_padded_about_their_centre():
    grid = WindowGrid(shape=(3, 10, 4), patch=(8, 8, 4), overlap=0.5)
    assert grid.padding == ((2, 3), (0, 0), (0, 0))
    padded = grid.pad(torch.ones(2, 3, 10, 4))
    assert padded.shape == (2, *grid.padded) == (2, 8, 10, 4)
    assert torch.equal(padded[:, 2:5], torch.ones(2, 3, 10, 4))
    assert padded.sum() == 2 * 3 * 10 * 4
