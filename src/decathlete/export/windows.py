"""Windows of prepared images, cut as in prediction: to calibrate a program, or to compare it with its model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from math import ceil
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decathlete.export.images import Images
from decathlete.inference.windows.sweep import window_grid
from decathlete.planning.plan import Plan

N_CASES, N_WINDOWS = 32, 96
MEMORY_BYTES = 10**9
"""Memory for windows: with large windows or many channels there are fewer, but at least :data:`FEWEST`."""
FEWEST = 16

Item = TypeVar("Item")


def calibration_windows(images: Images, plan: Plan) -> list[Tensor]:
    """Return windows as prediction cuts them, each (1, channel, *patch), float32, from up to :data:`N_CASES` cases.

    Cases, and the windows of a case, are chosen at equal distances: the same cases always give the same program.
    """
    window_bytes = 4 * plan.n_inputs * int(np.prod(plan.patch_size))
    n_windows = max(FEWEST, min(N_WINDOWS, MEMORY_BYTES // window_bytes))
    chosen = spread(list(images), min(N_CASES, n_windows))
    per_case = ceil(n_windows / len(chosen))
    return [window for case_id in chosen for window in case_windows(images[case_id](), plan, per_case)][:n_windows]


def case_windows(image_CZYX: NDArray[np.float32], plan: Plan, n: int) -> list[Tensor]:
    """Return at most ``n`` windows of one prepared image; of one, the middle of the grid."""
    _, z, y, x = image_CZYX.shape
    grid = window_grid((z, y, x), plan=plan)
    padded_CZYX = grid.pad(torch.from_numpy(image_CZYX))
    windows = [padded_CZYX[(slice(None), *box.slices)] for box in spread(grid.boxes, n)]
    return [(window.squeeze(1) if plan.dims == 2 else window)[None].clone() for window in windows]


def spread(items: Sequence[Item], n: int) -> list[Item]:
    """Return at most ``n`` of the items: the middles of ``n`` equal parts.

    >>> spread("abcdefghi", 3)
    ['b', 'e', 'h']
    """
    n = min(n, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * n)] for i in range(n)]


def first_middles(images: Images, plan: Plan, n: int) -> list[Tensor]:
    """Return the middle window of each of the first ``n`` cases."""
    return [window for read in islice(images.values(), n) for window in case_windows(read(), plan, 1)]
