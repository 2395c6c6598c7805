"""Changes of intensities: functions of *rows*, each one channel of one sample, with one strength for each row.

Letters: R rows; spatial axes are written ZYX, 2D rows lack Z. Nothing here waits for the device.
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor

BLUR_REACH = 3
"""A Gaussian kernel is cut off at this many sigmas."""


def per_row(values_R: Tensor, rows_RZYX: Tensor) -> Tensor:
    """One number for each row, shaped to be combined with the rows."""
    return values_R.reshape(-1, *[1] * (rows_RZYX.ndim - 1))


def add_noise(rows_RZYX: Tensor, std_R: Tensor, field_RZYX: Tensor) -> Tensor:
    """Add ``std`` times a field of standard normal noise."""
    return rows_RZYX + per_row(std_R, rows_RZYX) * field_RZYX


def multiply(rows_RZYX: Tensor, factor_R: Tensor) -> Tensor:
    """Brightness: multiply."""
    return rows_RZYX * per_row(factor_R, rows_RZYX)


def change_contrast(rows_RZYX: Tensor, factor_R: Tensor) -> Tensor:
    """Multiply distances to the row's mean, then clamp to the row's old range."""
    axes = _spatial(rows_RZYX)
    mean = rows_RZYX.mean(axes, keepdim=True)
    changed = mean + (rows_RZYX - mean) * per_row(factor_R, rows_RZYX)
    return changed.clamp(rows_RZYX.amin(axes, keepdim=True), rows_RZYX.amax(axes, keepdim=True))


def change_gamma(rows_RZYX: Tensor, exponent_R: Tensor) -> Tensor:
    """Map to 0..1, raise to a power, map back so that each row keeps its mean and standard deviation."""
    axes = _spatial(rows_RZYX)
    low, high = rows_RZYX.amin(axes, keepdim=True), rows_RZYX.amax(axes, keepdim=True)
    span = (high - low).clamp_min(1e-7)
    curved = ((rows_RZYX - low) / span).clamp(0, 1) ** per_row(exponent_R, rows_RZYX)
    # Population statistics: those of a single voxel are defined too.
    mean, std = _mean_and_std(rows_RZYX)
    new_mean, new_std = _mean_and_std(curved)
    return (curved - new_mean) * (std / new_std.clamp_min(1e-7)) + mean


def _mean_and_std(rows_RZYX: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row, in two passes: on CPUs several times faster than ``std_mean``, whose one pass is not vectorised."""
    axes = _spatial(rows_RZYX)
    mean = rows_RZYX.mean(axes, keepdim=True)
    return mean, (rows_RZYX - mean).square_().mean(axes, keepdim=True).sqrt_()


def change_gamma_inverted(rows_RZYX: Tensor, exponent_R: Tensor) -> Tensor:
    """:func:`change_gamma` of the negative image."""
    return -change_gamma(-rows_RZYX, exponent_R)


def blur(rows_RZYX: Tensor, sigma_R: Tensor, *, max_sigma: float) -> Tensor:
    """Gaussian blur, axis after axis; beyond the border the outermost voxel is repeated.

    Shifted sums rather than convolutions: each row has its own kernel, and grouped 3D convolutions are slow on CPUs.

    Args:
        sigma_R: voxels.
        max_sigma: the greatest sigma possible, from which the kernel's length follows without asking the device.
    """
    reach = ceil(BLUR_REACH * max_sigma)
    if reach == 0:
        return rows_RZYX
    distance = torch.arange(reach + 1, device=rows_RZYX.device)
    weight_RK = torch.exp(-0.5 * (distance / sigma_R.clamp_min(1e-3)[:, None]) ** 2)
    weight_RK = weight_RK / (2 * weight_RK.sum(1, keepdim=True) - weight_RK[:, :1])
    for axis in _spatial(rows_RZYX):
        rows_RZYX = _blur_axis(rows_RZYX, weight_RK, axis)
    return rows_RZYX


def _blur_axis(rows_RZYX: Tensor, weight_RK: Tensor, axis: int) -> Tensor:
    n, reach = rows_RZYX.shape[axis], weight_RK.shape[1] - 1
    if n == 1:
        return rows_RZYX
    source = torch.arange(-reach, n + reach, device=rows_RZYX.device).clamp(0, n - 1)
    padded = rows_RZYX.index_select(axis, source)
    total = rows_RZYX * per_row(weight_RK[:, 0], rows_RZYX)
    for k in range(1, reach + 1):
        pair = padded.narrow(axis, reach - k, n) + padded.narrow(axis, reach + k, n)
        total.addcmul_(pair, per_row(weight_RK[:, k], rows_RZYX))
    return total


def lower_resolution(rows_RZYX: Tensor, scale_R: Tensor, *, first_axis: int = 0) -> Tensor:
    """Keep the nearest voxels of a grid ``scale`` times as fine, and interpolate linearly between them.

    Equal to ``interpolate`` to the coarse grid (``nearest-exact``) and back (linear), for all rows together though
    each has its own grid.

    Args:
        scale_R: 0..1, coarse voxels per voxel.
        first_axis: spatial axes before this one keep their resolution.
    """
    for axis in _spatial(rows_RZYX)[first_axis:]:
        rows_RZYX = _lower_axis(rows_RZYX, scale_R, axis)
    return rows_RZYX


def _lower_axis(rows_RZYX: Tensor, scale_R: Tensor, axis: int) -> Tensor:
    n = rows_RZYX.shape[axis]
    coarse_R1 = (n * scale_R[:, None]).round().clamp(1, n)
    step_R1 = n / coarse_R1
    position_RN = torch.arange(n, device=rows_RZYX.device) + 0.5
    coarse_RN = ((position_RN / step_R1) - 0.5).clamp_min(0)
    before_RN = torch.minimum(coarse_RN.floor(), coarse_R1 - 1)
    after_RN = torch.minimum(before_RN + 1, coarse_R1 - 1)

    def kept(index_RN: Tensor) -> Tensor:
        # 1e-4: an exact half way (4.999999 for 5) must not fall to the voxel before.
        source_RN = ((index_RN + 0.5) * step_R1 + 1e-4).floor().clamp(0, n - 1).long()
        return rows_RZYX.gather(axis, _along(source_RN, rows_RZYX, axis).expand_as(rows_RZYX))

    return torch.lerp(kept(before_RN), kept(after_RN), _along(coarse_RN - before_RN, rows_RZYX, axis))


def _along(values_RN: Tensor, rows_RZYX: Tensor, axis: int) -> Tensor:
    """Numbers for each row and place along ``axis``, shaped to be combined with the rows."""
    return values_RN.reshape(len(values_RN), *[n if a == axis else 1 for a, n in enumerate(rows_RZYX.shape)][1:])


def _spatial(rows_RZYX: Tensor) -> list[int]:
    return list(range(1, rows_RZYX.ndim))
