"""Normalise the channels of an image by the plan, and find the object in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from decathlete.core.registry import ComponentSettings
from decathlete.planning.normalizations import NORMALIZATIONS


def normalize(
    image_CZYX: NDArray[np.float32],
    normalizations: Sequence[ComponentSettings],
    mask_ZYX: NDArray[np.bool_] | None,
) -> NDArray[np.float32]:
    """Normalise each channel.

    Args:
        normalizations: settings for each channel, as in :attr:`Plan.normalization`.
        mask_ZYX: voxels of the object, see :func:`object_mask`; required if :func:`needs_mask`.
    """
    out_CZYX = np.empty(image_CZYX.shape, np.float32)
    for out_ZYX, channel_ZYX, settings in zip(out_CZYX, image_CZYX, normalizations, strict=True):
        normalization = NORMALIZATIONS.build(settings)
        out_ZYX[...] = normalization.apply(channel_ZYX, mask_ZYX if normalization.needs_mask else None)
    return out_CZYX


def needs_mask(normalizations: Sequence[ComponentSettings]) -> bool:
    """Return whether any of the normalisations uses the mask of the object."""
    return any(NORMALIZATIONS.build(settings).needs_mask for settings in normalizations)


def object_mask(image_CZYX: NDArray[np.float32], *, fill_slice_holes: bool = True) -> NDArray[np.bool_]:
    """Return the voxels that are non-zero in any channel, with enclosed holes filled (bool ZYX).

    A hole is a zero region that does not reach the border of the volume.

    Args:
        fill_slice_holes: along an axis of a single voxel every region reaches the border, so that only the other axes
            count there. ``False``: all axes count, and a single slice has no holes, as in nnU-Net.
    """
    mask_ZYX = (image_CZYX != 0).any(axis=0)
    zeros, n = ndimage.label(~mask_ZYX)
    outside = np.zeros(n + 1, bool)
    for axis, size in enumerate(mask_ZYX.shape):
        if size > 1 or not fill_slice_holes:
            for end in (0, -1):
                outside[np.unique(zeros.take(end, axis=axis))] = True
    outside[0] = False
    return np.asarray(~outside[zeros])
