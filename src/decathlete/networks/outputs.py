"""What a network's output channels mean: probabilities, masks of structures and label values.

A :class:`~decathlete.core.labels.LabelSet` has exclusive classes (softmax, the greatest logit wins) or overlapping
regions (sigmoid, each above 1/2 by itself). All that depends on this for tensors is here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from decathlete.core.labels import LabelSet


def activate(logits_KZYX: Tensor, labels: LabelSet) -> Tensor:
    """Return the probability of each output channel: softmax over classes, or sigmoid of each region."""
    return logits_KZYX.sigmoid() if labels.activation == "sigmoid" else logits_KZYX.softmax(dim=0)


def background_probability(output: int, labels: LabelSet) -> float:
    """Return the probability of channel ``output`` in a voxel that is background for certain."""
    return float(labels.activation == "softmax" and output == 0)


def predicted_structures(logits_KZYX: Tensor, labels: LabelSet) -> Iterator[Tensor]:
    """Yield the boolean mask ZYX that the logits predict for each of ``labels.structures``, in their order."""
    if labels.activation == "sigmoid":
        yield from (channel_ZYX > 0 for channel_ZYX in logits_KZYX)
    else:
        winner_ZYX = logits_KZYX.argmax(dim=0)
        yield from (winner_ZYX == index for index in range(1, labels.n_classes))


def true_structures(indices_ZYX: Tensor, labels: LabelSet) -> Iterator[Tensor]:
    """Yield the boolean mask ZYX of each of ``labels.structures`` in a map of class indices, in their order."""
    for members in labels.structure_indices:
        mask_ZYX = indices_ZYX == members[0]
        for index in members[1:]:  # torch.isin would copy the members to the device, and wait for it
            mask_ZYX |= indices_ZYX == index
        yield mask_ZYX


def decide_logits(logits_KZYX: Tensor, labels: LabelSet) -> NDArray[np.integer[Any]]:
    """Return the label map ZYX (file values) of logits.

    Of classes, the one with the greatest logit; of regions, all above 0 (probability 1/2), painted in
    ``labels.region_order``, so that later ones overwrite earlier ones.
    """
    return _decide(logits_KZYX, labels, threshold=0.0)


def decide_probabilities(probabilities_KZYX: Tensor, labels: LabelSet) -> NDArray[np.integer[Any]]:
    """Return the label map ZYX (file values) of probabilities, by the same rule as :func:`decide_logits`."""
    return _decide(probabilities_KZYX, labels, threshold=0.5)


def file_dtype(labels: LabelSet) -> np.dtype[np.integer[Any]]:
    """Return the smallest integer type for every value that may be written."""
    values = [*labels.values, *labels.region_order, *([] if labels.ignore is None else [labels.ignore])]
    return np.result_type(np.min_scalar_type(min(values)), np.min_scalar_type(max(values)))


def _decide(scores_KZYX: Tensor, labels: LabelSet, *, threshold: float) -> NDArray[np.integer[Any]]:
    if labels.activation == "softmax":
        values = np.array(labels.values, file_dtype(labels))
        return np.asarray(values[scores_KZYX.argmax(dim=0).cpu().numpy()])
    out_ZYX = np.zeros(scores_KZYX.shape[1:], file_dtype(labels))
    for inside_ZYX, value in zip((scores_KZYX > threshold).cpu().numpy(), labels.region_order, strict=True):
        out_ZYX[inside_ZYX] = value
    return out_ZYX
