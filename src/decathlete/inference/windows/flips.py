"""Flips as test-time augmentation: the mean of the logits of an image and its mirror images, each flipped back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, combinations

import torch
from torch import Tensor

from decathlete.planning.mirror_pairs import SideSwap

Predict = Callable[[Tensor], Tensor]
"""Computes logits of windows; the caller may overwrite them (see :class:`~decathlete.inference.engines.Engine`)."""


def flip_sets(mirror_axes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return all combinations of ``mirror_axes``, the empty one first: 8 for three axes, 4 for two, 1 for none."""
    axes = sorted(set(mirror_axes))
    return tuple(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))


@torch.inference_mode()
def mean_over_flips(
    networks: Sequence[Predict], windows: Tensor, mirror_axes: Sequence[int], *, side_swap: SideSwap | None = None
) -> Tensor:
    """Return the mean logits of several networks and all flips along ``mirror_axes``, in a fixed order.

    The first logits become the sum, so at most two sets of logits exist at a time, however many networks and flips
    there are.

    Args:
        networks: each computes logits of windows.
        windows: (batch, channel, then the spatial axes).
        mirror_axes: spatial axes, counted from 0 after batch and channel; empty: each network computes once.
        side_swap: outputs that change sides in flips from left to right; they are swapped back. Masks of a previous
            stage among the inputs are swapped, too.
    """
    flips = flip_sets(mirror_axes)
    total: Tensor | None = None
    for predict in networks:
        for axes in flips:
            logits = predict(_flipped(windows, axes, side_swap))
            if total is None:
                total = logits
            else:
                _add_flipped(total, logits, axes, side_swap)
            del logits  # frees them before the next are computed
    assert total is not None  # for the type checker: there is a network, and the empty combination of axes
    n = len(networks) * len(flips)
    return total.div_(n) if n > 1 else total


def _flipped(windows: Tensor, axes: Sequence[int], side_swap: SideSwap | None) -> Tensor:
    if not axes:
        return windows
    if side_swap is not None and side_swap.axis in axes and side_swap.swaps_inputs:
        windows = windows[:, list(side_swap.inputs)]
    return windows.flip([axis + 2 for axis in axes])


def _add_flipped(total: Tensor, logits: Tensor, axes: Sequence[int], side_swap: SideSwap | None) -> None:
    """Add class by class: a flipped copy of a hundred classes is large."""
    swaps = side_swap is not None and side_swap.axis in axes
    outputs = side_swap.outputs if side_swap is not None and swaps else range(logits.shape[1])
    for k, source in enumerate(outputs):
        total[:, k] += logits[:, source].flip([axis + 1 for axis in axes]) if axes else logits[:, source]
