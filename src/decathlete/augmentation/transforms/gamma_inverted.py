"""Gamma correction of the negative image."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from decathlete.augmentation.draws import RowContext
from decathlete.augmentation.transforms import (
    TRANSFORMS,
    IntensitySettings,
    IntensityTransform,
    PositiveInterval,
    Probability,
)
from decathlete.augmentation.transforms.gamma import correct_gamma


@TRANSFORMS.register("gamma_inverted")
class GammaInverted(IntensityTransform):
    """Apply a gamma correction to the negative image."""

    class Settings(IntensitySettings):
        """Probability and range of the exponent."""

        probability: Probability = 0.1
        between: PositiveInterval = Field(default=(0.7, 1.5), description="Range of the exponent.")

    def __call__(self, rows_RZYX: Tensor, strength_R: Tensor, context: RowContext) -> Tensor:
        """Apply to the negative of each row its strength as exponent."""
        return -correct_gamma(-rows_RZYX, strength_R)
