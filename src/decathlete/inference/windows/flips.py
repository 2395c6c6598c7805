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


Predict = Callable[[Tensor], Tensor]
"""Windows to logits, which are the caller's to change (:class:`~decathlete.inference.engines.torch_engine.Engine`)."""


def mean_over_flips(predict: Predict, windows: Tensor, mirror_axes: Sequence[int]) -> Tensor:
    """Mean of ``predict`` over all flips of ``windows`` along ``mirror_axes``, flipped back, in a fixed order.

    Args:
        windows: (batch, channel, then the spatial axes).
        mirror_axes: spatial axes, counted from 0 after batch and channel; empty predicts once.
    """
    return mean_over_all((predict,), windows, mirror_axes)


@torch.inference_mode()
def mean_over_all(predictions: Sequence[Predict], windows: Tensor, mirror_axes: Sequence[int]) -> Tensor:
    """The same mean over several networks.

    The sum grows in the first logits that come, so that of all logits two are there at a time, however many networks
    and flips there are.
    """
    flips = flip_sets(mirror_axes)
    total: Tensor | None = None
    for predict in predictions:
        for axes in flips:
            logits = predict(windows.flip([axis + 2 for axis in axes]) if axes else windows)
            if total is None:
                total = logits
            else:
                _add_flipped(total, logits, axes)
            del logits  # or they would stay while the next are computed
    assert total is not None  # for the type checker: there is a network, and the empty set of axes
    n = len(predictions) * len(flips)
    return total.div_(n) if n > 1 else total


def _add_flipped(total: Tensor, logits: Tensor, axes: Sequence[int]) -> None:
    """Class by class: a flipped copy of a hundred of them is large."""
    for k in range(logits.shape[1]):
        total[:, k] += logits[:, k].flip([axis + 1 for axis in axes]) if axes else logits[:, k]
