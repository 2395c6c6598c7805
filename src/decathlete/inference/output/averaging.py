"""Predictions of different plans become one: the mean of their probabilities on the image's own grid is decided.

Plans have grids of their own, so that their logits cannot be averaged as those of one plan are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decathlete.core.geometry import Shape
from decathlete.core.labels import LabelSet
from decathlete.inference.output.probabilities import BLOCK_BYTES, ProbabilityFile, ProbabilityStore
from decathlete.inference.output.restore import decide, value_type


def average(
    parts: Sequence[ProbabilityFile],
    labels: LabelSet,
    shape_ZYX: Shape,
    store: ProbabilityStore | None,
    *,
    weights: Sequence[float] = (),
) -> NDArray[np.integer[Any]]:
    """The label map (file values) of the mean probabilities, a few planes at a time.

    Args:
        parts: of each plan, on the image's grid, of ``shape_ZYX``.
        store: takes the means, planes across the file's z; ``None``: they are not asked for.
        weights: of each part in the mean; empty: all count equally.

    Raises:
        OutputError: the disk cannot be read or written.
    """
    for part in parts:
        part.put_in_order()
    threshold = 0.5 if labels.regions else 0.0  # ``decide`` takes logits, whose sign is that of p - 1/2
    label_ZYX = np.empty(shape_ZYX, value_type(labels))
    step = max(1, BLOCK_BYTES // (4 * labels.n_outputs * prod(shape_ZYX[1:])))
    for first in range(0, shape_ZYX[0], step):
        last = min(first + step, shape_ZYX[0])
        mean_KZYX = _mean(parts, first, last, weights)
        label_ZYX[first:last] = decide(torch.from_numpy(mean_KZYX) - threshold, labels)
        if store is not None:
            for output, planes_ZYX in enumerate(mean_KZYX):
                store.put(output, first, planes_ZYX)
    return label_ZYX


def _mean(
    parts: Sequence[ProbabilityFile], first: int, last: int, weights: Sequence[float] = ()
) -> NDArray[np.float32]:
    mean_KZYX = parts[0].planes(first, last)
    if weights:
        mean_KZYX *= np.float32(weights[0] / sum(weights))
        for other, weight in zip(parts[1:], weights[1:], strict=True):
            mean_KZYX += np.float32(weight / sum(weights)) * other.planes(first, last)
        return mean_KZYX
    for other in parts[1:]:
        mean_KZYX += other.planes(first, last)
    mean_KZYX /= len(parts)
    return mean_KZYX
