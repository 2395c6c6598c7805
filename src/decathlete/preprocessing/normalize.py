"""Intensities become network input, channel by channel, as the plan says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from decathlete.planning.plan import Normalization

_TINY = 1e-8
"""A standard deviation below this share of the greatest intensity is a constant image: rounding, not signal."""


def normalize(
    image_CZYX: NDArray[np.float32], schemes: Sequence[Normalization], mask_ZYX: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """Normalise each channel by its scheme; a constant image becomes 0 everywhere.

    Args:
        mask_ZYX: the object, see :func:`object_mask`; needed where a scheme is ``nonzero_only``.
    """
    out_CZYX = np.empty(image_CZYX.shape, np.float32)
    for out_ZYX, channel_ZYX, scheme in zip(out_CZYX, image_CZYX, schemes, strict=True):
        out_ZYX[...] = _normalize_channel(channel_ZYX, scheme, mask_ZYX if scheme.nonzero_only else None)
    return out_CZYX


def _normalize_channel(
    channel_ZYX: NDArray[np.float32], scheme: Normalization, mask_ZYX: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    if scheme.scheme == "ct":
        clipped = np.clip(channel_ZYX, scheme.clip_low, scheme.clip_high)
        return _scaled(clipped, scheme.mean, max(scheme.std, _TINY))
    if scheme.scheme == "zscore":
        return _zscore(channel_ZYX, mask_ZYX)
    if scheme.scheme == "rescale":
        low, high = float(channel_ZYX.min()), float(channel_ZYX.max())
        return _scaled(channel_ZYX, low, high - low)
    return channel_ZYX


def _zscore(channel_ZYX: NDArray[np.float32], mask_ZYX: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    voxels = channel_ZYX if mask_ZYX is None else channel_ZYX[mask_ZYX]
    if not voxels.size:
        return np.zeros_like(channel_ZYX)
    mean, std = float(voxels.mean(dtype=np.float64)), float(voxels.std(dtype=np.float64))
    if std <= _TINY * float(np.abs(voxels).max()):
        std = 0.0
    scaled = _scaled(channel_ZYX, mean, std)
    return scaled if mask_ZYX is None else np.where(mask_ZYX, scaled, np.float32(0))


def _scaled(channel_ZYX: NDArray[np.float32], shift: float, scale: float) -> NDArray[np.float32]:
    if scale == 0:
        return np.zeros_like(channel_ZYX)
    out = channel_ZYX - np.float32(shift)
    out /= np.float32(scale)
    return out


def object_mask(image_CZYX: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Voxels that are non-zero in any channel, with enclosed holes filled (bool ZYX).

    A hole is a zero region that does not reach the border; of a volume one voxel thick along an axis, all zero
    regions do, so that only the other axes count there.
    """
    mask_ZYX = (image_CZYX != 0).any(axis=0)
    thin = tuple(n == 1 for n in mask_ZYX.shape)
    zeros, n = ndimage.label(~mask_ZYX)
    outside = np.zeros(n + 1, bool)
    for axis in range(3):
        if not thin[axis]:
            for end in (0, -1):
                outside[np.unique(zeros.take(end, axis=axis))] = True
    outside[0] = False
    return np.asarray(~outside[zeros])
