"""Simulation of low resolution."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from decathlete.augmentation.draws import RowContext
from decathlete.augmentation.rows import along_axis, spatial_axes
from decathlete.augmentation.transforms import (
    TRANSFORMS,
    ChannelProbability,
    IntensitySettings,
    IntensityTransform,
    PositiveInterval,
    Probability,
)


def _at_most_one(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[1] > 1:
        raise ValueError("must not exceed 1: the transform only reduces the resolution")
    return interval


@TRANSFORMS.register("low_resolution")
class LowResolution(IntensityTransform):
    """Keep the nearest voxels of a coarser grid, and interpolate linearly between them.

    Equal to ``interpolate`` to the coarse grid (``nearest-exact``) and back (linear), for all rows together though
    each has its own grid. Where a patch is rotated in its plane alone, its first axis keeps its resolution.
    """

    class Settings(IntensitySettings):
        """Probability and coarseness of the grid."""

        probability: Probability = 0.25
        channel_probability: ChannelProbability = 0.5
        between: Annotated[PositiveInterval, AfterValidator(_at_most_one)] = Field(
            default=(0.5, 1.0), description="Range of the coarse grid's voxels per voxel, along an axis; at most 1."
        )

    def __call__(self, rows_RZYX: Tensor, strength_R: Tensor, context: RowContext) -> Tensor:
        """Reduce the resolution of each row to its strength, axis after axis."""
        for axis in spatial_axes(rows_RZYX)[1 if self.patch.in_plane else 0 :]:
            rows_RZYX = _reduce_axis(rows_RZYX, strength_R, axis)
        return rows_RZYX


def _reduce_axis(rows_RZYX: Tensor, scale_R: Tensor, axis: int) -> Tensor:
    n = rows_RZYX.shape[axis]
    coarse_R1 = (n * scale_R[:, None]).round().clamp(1, n)
    step_R1 = n / coarse_R1
    position_RN = torch.arange(n, device=rows_RZYX.device) + 0.5
    coarse_RN = ((position_RN / step_R1) - 0.5).clamp_min(0)
    before_RN = torch.minimum(coarse_RN.floor(), coarse_R1 - 1)
    after_RN = torch.minimum(before_RN + 1, coarse_R1 - 1)

    def values_at(index_RN: Tensor) -> Tensor:
        # 1e-4: an exact half way (4.999999 for 5) must not fall to the voxel before.
        source_RN = ((index_RN + 0.5) * step_R1 + 1e-4).floor().clamp(0, n - 1).long()
        return rows_RZYX.gather(axis, along_axis(source_RN, rows_RZYX, axis).expand_as(rows_RZYX))

    share = along_axis(coarse_RN - before_RN, rows_RZYX, axis)
    return torch.lerp(values_at(before_RN), values_at(after_RN), share)
