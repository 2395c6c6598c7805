"""The prediction of a cascade's previous stage as input channels: a mask of 0 and 1 for each structure.

Training and prediction use the same function, on a label map of the image's own grid: it is cropped and resampled as a
reference label is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decathlete.errors import GridMismatchError
from decathlete.planning.plan import Plan
from decathlete.preprocessing.prepared import PreparedCase, Restoration
from decathlete.preprocessing.resample import resample_label


def add_previous_stage(
    case: PreparedCase, label_ZYX: NDArray[np.integer[Any]], plan: Plan, *, restoration: Restoration | None = None
) -> PreparedCase:
    """Return a prepared case with the masks of the previous stage as its last channels.

    Args:
        case: as prepared for the second stage, without these channels.
        label_ZYX: prediction of the previous stage: file values on the image's own grid.
        plan: of the second stage.
        restoration: how the image was prepared, if it differs from that in ``case``.

    Raises:
        GridMismatchError: the prediction has another shape than the image.
    """
    way = restoration or case.restoration
    if label_ZYX.shape != way.geometry.shape_ZYX:
        raise GridMismatchError(
            f"the prediction of {plan.previous_stage} has the shape {label_ZYX.shape}, the image "
            f"{way.geometry.shape_ZYX}",
            where=f"case {case.case_id}" if case.case_id else "the image",
            remedy=f"predict the image again with {plan.previous_stage}",
        )
    masks_SZYX = structure_masks(label_ZYX, plan, way)
    return replace(case, image_CZYX=np.concatenate([case.image_CZYX, masks_SZYX]))


def structure_masks(label_ZYX: NDArray[np.integer[Any]], plan: Plan, restoration: Restoration) -> NDArray[np.float32]:
    """Return a mask of each structure (float32, 0 or 1) on the prepared grid."""
    labels = plan.labels
    indices_ZYX = np.ascontiguousarray(restoration.axes.apply(labels.to_indices(label_ZYX))[restoration.crop.slices])
    resampled_ZYX = resample_label(
        torch.from_numpy(indices_ZYX), restoration.shape, labels.n_classes, separate_axis=restoration.separate_axis
    ).numpy()
    masks = [np.isin(resampled_ZYX, members) for members in labels.structure_indices]
    return np.stack(masks).astype(np.float32)
