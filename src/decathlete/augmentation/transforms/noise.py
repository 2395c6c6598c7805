"""Gaussian noise."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from decathlete.augmentation.draws import RowContext
from decathlete.augmentation.rows import per_row
from decathlete.augmentation.transforms import (
    TRANSFORMS,
    IntensitySettings,
    IntensityTransform,
    NonNegativeInterval,
    Probability,
)


@TRANSFORMS.register("noise")
class Noise(IntensityTransform):
    """Add Gaussian noise, independent in every voxel."""

    class Settings(IntensitySettings):
        """Probability and strength of the noise."""

        probability: Probability = 0.1
        between: NonNegativeInterval = Field(
            default=(0.0, 0.316),
            description="Range of the standard deviation, in units of the normalised image (variance up to 0.1).",
        )

    def __call__(self, rows_RZYX: Tensor, strength_R: Tensor, context: RowContext) -> Tensor:
        """Add ``strength`` times standard normal noise."""
        return rows_RZYX + per_row(strength_R, rows_RZYX) * context.normal_like(rows_RZYX)
