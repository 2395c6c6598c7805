"""Average the probabilities that models of different plans predict, on the image's own grid.

Each plan has its own prepared grid, so logits of different plans cannot be averaged.
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
from decathlete.networks.outputs import decide_probabilities, file_dtype


def average(
    parts: Sequence[ProbabilityFile],
    labels: LabelSet,
    shape_ZYX: Shape,
    store: ProbabilityStore | None,
    *,
    weights: Sequence[float] = (),
) -> NDArray[np.integer[Any]]:
    """Return the label map (file values) of the mean probabilities, computed a few planes at a time.

    Args:
        parts: the probabilities of each plan, on the image's grid.
        shape_ZYX: of the image.
        store: receives the mean probabilities, planes across the file's z; ``None``: they are not stored.
        weights: of each part in the mean; empty: all count equally.

    Raises:
        OutputError: the disk cannot be read or written.
    """
    for part in parts:
        part.put_in_order()
    label_ZYX = np.empty(shape_ZYX, file_dtype(labels))
    step = max(1, BLOCK_BYTES // (4 * labels.n_outputs * prod(shape_ZYX[1:])))
    for first in range(0, shape_ZYX[0], step):
        last = min(first + step, shape_ZYX[0])
        mean_KZYX = _mean(parts, first, last, weights)
        label_ZYX[first:last] = decide_probabilities(torch.from_numpy(mean_KZYX), labels)
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
