"""Gaussian blur."""

from __future__ import annotations

from math import ceil

import torch
from pydantic import Field
from torch import Tensor

from decathlete.augmentation.draws import RowContext
from decathlete.augmentation.rows import per_row, spatial_axes
from decathlete.augmentation.transforms import (
    TRANSFORMS,
    ChannelProbability,
    IntensitySettings,
    IntensityTransform,
    NonNegativeInterval,
    Probability,
)

TRUNCATE = 3
"""Reach of the Gaussian kernel, sigmas."""


@TRANSFORMS.register("blur")
class Blur(IntensityTransform):
    """Blur with a Gaussian; beyond the border the outermost voxel is repeated.

    Shifted sums rather than convolutions: each row has its own kernel, and grouped 3D convolutions are slow on CPUs.
    """

    class Settings(IntensitySettings):
        """Probability and width of the blur."""

        probability: Probability = 0.2
        channel_probability: ChannelProbability = 0.5
        between: NonNegativeInterval = Field(default=(0.5, 1.0), description="Range of sigma, voxels.")

    def __call__(self, rows_RZYX: Tensor, strength_R: Tensor, context: RowContext) -> Tensor:
        """Blur each row with its strength as sigma, axis after axis."""
        # The kernel's length follows from the range: the device would have to be asked for the greatest sigma.
        reach = ceil(TRUNCATE * self.settings.between[1])
        if reach == 0:
            return rows_RZYX
        distance = torch.arange(reach + 1, device=rows_RZYX.device)
        weight_RK = torch.exp(-0.5 * (distance / strength_R.clamp_min(1e-3)[:, None]) ** 2)
        weight_RK = weight_RK / (2 * weight_RK.sum(1, keepdim=True) - weight_RK[:, :1])
        for axis in spatial_axes(rows_RZYX):
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
