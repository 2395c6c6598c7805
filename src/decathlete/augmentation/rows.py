"""Arithmetic with rows, each one channel of one sample.

Letters: R rows; spatial axes are written ZYX, 2D rows lack Z. Nothing here makes the host wait for the device.
"""

from __future__ import annotations

from torch import Tensor


def spatial_axes(rows_RZYX: Tensor) -> list[int]:
    """Return the axes of the rows that are spatial: all but the first."""
    return list(range(1, rows_RZYX.ndim))


def per_row(values_R: Tensor, rows_RZYX: Tensor) -> Tensor:
    """Reshape one number per row so that it broadcasts over the rows."""
    return values_R.reshape(-1, *[1] * (rows_RZYX.ndim - 1))


def along_axis(values_RN: Tensor, rows_RZYX: Tensor, axis: int) -> Tensor:
    """Reshape one number per row and voxel along ``axis`` so that it broadcasts over the rows."""
    return values_RN.reshape(len(values_RN), *[n if a == axis else 1 for a, n in enumerate(rows_RZYX.shape)][1:])


def mean_and_std(rows_RZYX: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's mean and population standard deviation, shaped to broadcast over the rows.

    In two passes: ``std_mean`` makes one, which is not vectorised on CPUs and takes several times as long.
    """
    axes = spatial_axes(rows_RZYX)
    mean = rows_RZYX.mean(axes, keepdim=True)
    return mean, (rows_RZYX - mean).square_().mean(axes, keepdim=True).sqrt_()
