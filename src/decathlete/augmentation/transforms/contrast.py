"""Contrast."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from decathlete.augmentation.draws import RowContext
from decathlete.augmentation.rows import per_row, spatial_axes
from decathlete.augmentation.transforms import (
    TRANSFORMS,
    IntensitySettings,
    IntensityTransform,
    PositiveInterval,
    Probability,
)


@TRANSFORMS.register("contrast")
class Contrast(IntensityTransform):
    """Multiply distances to the mean by a factor, then clamp to the old range."""

    class Settings(IntensitySettings):
        """Probability and range of the factor."""

        probability: Probability = 0.15
        between: PositiveInterval = Field(default=(0.75, 1.25), description="Range of the factor.")

    def __call__(self, rows_RZYX: Tensor, strength_R: Tensor, context: RowContext) -> Tensor:
        """Multiply distances to the row's mean by its strength, then clamp to the row's old range."""
        axes = spatial_axes(rows_RZYX)
        mean = rows_RZYX.mean(axes, keepdim=True)
        changed = mean + (rows_RZYX - mean) * per_row(strength_R, rows_RZYX)
        return changed.clamp(rows_RZYX.amin(axes, keepdim=True), rows_RZYX.amax(axes, keepdim=True))
