"""Brightness."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from decathlete.augmentation.draws import RowContext
from decathlete.augmentation.rows import per_row
from decathlete.augmentation.transforms import (
    TRANSFORMS,
    IntensitySettings,
    IntensityTransform,
    PositiveInterval,
    Probability,
)


@TRANSFORMS.register("brightness")
class Brightness(IntensityTransform):
    """Multiply intensities by a factor."""

    class Settings(IntensitySettings):
        """Probability and range of the factor."""

        probability: Probability = 0.15
        between: PositiveInterval = Field(default=(0.75, 1.25), description="Range of the factor.")

    def __call__(self, rows_RZYX: Tensor, strength_R: Tensor, context: RowContext) -> Tensor:
        """Multiply each row by its strength."""
        return rows_RZYX * per_row(strength_R, rows_RZYX)
