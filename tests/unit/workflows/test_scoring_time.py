"""The expected time of scoring follows from windows, flips, outputs and the size of the files."""

from __future__ import annotations

import pytest

from decathlete.core.sliding_window import SlidingWindow
from decathlete.planning.compute_budget import TRAINING_PASSES, ComputeBudget, step_seconds
from decathlete.workflows.scoring_time import CASE_S, VOXELS_PER_S, expected_case_seconds
from factories import make_test_plan

BUDGET = ComputeBudget(device="cpu", threads=1)


def network_seconds(dims: int, window: SlidingWindow, **changes: object) -> float:
    """Return what the network takes in images of 20 voxels along each axis; the patch has 16, so 2 windows fit."""
    plan = make_test_plan(dims, **changes)
    seconds = expected_case_seconds(plan, BUDGET, window, n_voxels=0.0)
    return (seconds - CASE_S) / (step_seconds(plan.network, plan.patch_size, 1, budget=BUDGET) / TRAINING_PASSES)


@pytest.mark.parametrize(("dims", "windows"), [(3, 2**3), (2, 20 * 2**2)])
def test_every_window_is_one_forward_pass(dims: int, windows: int) -> None:
    assert network_seconds(dims, SlidingWindow()) == pytest.approx(windows)
    assert network_seconds(dims, SlidingWindow(tta=True)) == pytest.approx(windows * 2**dims)
    assert network_seconds(dims, SlidingWindow(tta=True), mirror_axes=()) == pytest.approx(windows)


def test_the_voxels_of_the_file_count_for_each_output() -> None:
    plan = make_test_plan(n_foreground=4)
    small, large = (expected_case_seconds(plan, BUDGET, SlidingWindow(), n_voxels=n_voxels) for n_voxels in (0.0, 1e6))
    assert large - small == pytest.approx(5 * 1e6 / VOXELS_PER_S)
