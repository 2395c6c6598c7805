"""Estimate how long held-out cases take to predict and score, from the plan, before any is scored."""

from __future__ import annotations

from decathlete.core.sliding_window import SlidingWindow
from decathlete.inference.windows.grid import count_windows
from decathlete.planning.compute_budget import TRAINING_PASSES, ComputeBudget, step_seconds
from decathlete.planning.plan import Plan

FOLD_S = 1.5
"""Time to start the engine (0.5 s) and to write the report of a fold (1 s), seconds of one processor."""
CASE_S = 0.03
"""Time to read, check and write a case, seconds of one processor."""
VOXELS_PER_S = 2.5e6
"""Voxels of one output that are resampled, compared and measured in a second. Beside the network, a case took 0.05 s of
the hippocampus (0.06 million voxels, 3 outputs) and 0.26 s of DSB2018 (0.36 million, 2 outputs)."""


def expected_fold_seconds(case_s: float, n_cases: float) -> float:
    """Return the expected seconds to score the held-out cases of a fold.

    >>> expected_fold_seconds(0.5, 10)
    6.5
    """
    return FOLD_S + n_cases * case_s


def expected_case_seconds(plan: Plan, budget: ComputeBudget, window: SlidingWindow, *, n_voxels: float) -> float:
    """Return the expected seconds to predict and score an image by one network.

    Args:
        plan: as it is trained, adapted to the budget.
        budget: the machine.
        window: how the network is moved over the image.
        n_voxels: number of voxels of the file.
    """
    n_windows = count_windows(plan.median_shape, plan.patch_size, window.overlap)
    n_flips = 2 ** len(plan.mirrored_axes) if window.tta else 1
    forward_s = step_seconds(plan.network, tuple(plan.patch_size), 1, budget=budget) / TRAINING_PASSES
    network_s = n_windows * n_flips * forward_s
    return CASE_S + network_s + n_voxels * plan.labels.n_outputs / VOXELS_PER_S
