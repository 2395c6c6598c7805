"""Estimate how long held-out cases take to predict and score, from the plan, before any is scored."""

from __future__ import annotations

import math

from decathlete.core.geometry import Shape
from decathlete.core.sliding_window import SlidingWindow
from decathlete.inference.windows.grid import window_starts
from decathlete.planning.compute_budget import TRAINING_PASSES, ComputeBudget, step_seconds
from decathlete.planning.plan import Plan

CASE_S = 0.2
"""Time to read, check and write a case, seconds."""
VOXELS_PER_S = 1.5e6
"""Voxels of one class that are resampled, compared and measured in a second."""


def expected_case_seconds(plan: Plan, budget: ComputeBudget, window: SlidingWindow) -> float:
    """Return the expected seconds to predict and score an image of median size by one network.

    Args:
        plan: as it is trained, adapted to the budget.
        budget: the machine.
        window: how the network is moved over the image.
    """
    patch = (1,) * (3 - plan.dims) + tuple(plan.patch_size)
    starts = [window_starts(s, p, window.overlap) for s, p in zip(plan.median_shape, patch, strict=True)]
    n_flips = 2 ** len(plan.mirrored_axes) if window.tta else 1
    forward_s = step_seconds(plan.network, tuple(plan.patch_size), 1, budget=budget) / TRAINING_PASSES
    network_s = math.prod(len(along) for along in starts) * n_flips * forward_s
    return CASE_S + network_s + _other_seconds(plan.median_shape, plan.labels.n_outputs)


def _other_seconds(shape: Shape, n_outputs: int) -> float:
    return math.prod(shape) * n_outputs / VOXELS_PER_S
