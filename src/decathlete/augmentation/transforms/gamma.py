"""Gamma correction."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from decathlete.augmentation.draws import RowContext
from decathlete.augmentation.rows import mean_and_std, per_row, spatial_axes
from decathlete.augmentation.transforms import (
    TRANSFORMS,
    IntensitySettings,
    IntensityTransform,
    PositiveInterval,
    Probability,
)


@TRANSFORMS.register("gamma")
class Gamma(IntensityTransform):
    """Map intensities to 0..1, raise them to a power, and restore mean and standard deviation."""

    class Settings(IntensitySettings):
        """Probability and range of the exponent."""

        probability: Probability = 0.3
        between: PositiveInterval = Field(default=(0.7, 1.5), description="Range of the exponent.")

    def __call__(self, rows_RZYX: Tensor, strength_R: Tensor, context: RowContext) -> Tensor:
        """Apply to each row its strength as exponent."""
        return correct_gamma(rows_RZYX, strength_R)


def correct_gamma(rows_RZYX: Tensor, exponent_R: Tensor) -> Tensor:
    """Map to 0..1, raise to a power, map back so that each row keeps its mean and standard deviation."""
    axes = spatial_axes(rows_RZYX)
    low, high = rows_RZYX.amin(axes, keepdim=True), rows_RZYX.amax(axes, keepdim=True)
    span = (high - low).clamp_min(1e-7)
    curved = ((rows_RZYX - low) / span).clamp(0, 1) ** per_row(exponent_R, rows_RZYX)
    # Population statistics: those of a single voxel are defined too.
    mean, std = mean_and_std(rows_RZYX)
    new_mean, new_std = mean_and_std(curved)
    return (curved - new_mean) * (std / new_std.clamp_min(1e-7)) + mean
