"""Flips as test-time augmentation: the mean of the logits of an image and its mirror images, each flipped back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, combinations

import torch
from torch import Tensor


def flip_sets(mirror_axes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """All combinations of ``mirror_axes``, the empty one first: 8 for three axes, 4 for two, 1 for none."""
    axes = sorted(set(mirror_axes))
    return tuple(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))


@torch.inference_mode()
def mean_over_flips(predict: Callable[[Tensor], Tensor], windows: Tensor, mirror_axes: Sequence[int]) -> Tensor:
    """Mean of ``predict`` over all flips of ``windows`` along ``mirror_axes``, flipped back, in a fixed order.

    Args:
        windows: (batch, channel, then the spatial axes).
        mirror_axes: spatial axes, counted from 0 after batch and channel; empty predicts once.
    """
    flips = flip_sets(mirror_axes)
    total = predict(windows).clone() if len(flips) > 1 else predict(windows)
    for axes in flips[1:]:
        mirrored = predict(windows.flip([axis + 2 for axis in axes]))
        for k in range(mirrored.shape[1]):  # class by class: a flipped copy of a hundred of them is large
            total[:, k] += mirrored[:, k].flip([axis + 1 for axis in axes])
    return total.div_(len(flips)) if len(flips) > 1 else total
