"""Cutout (DeVries & Taylor, arXiv 1708.04552): a box of the patch without intensities."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from decathlete.augmentation.device import to_device
from decathlete.augmentation.draws import RowContext
from decathlete.augmentation.rows import along_axis, mean_and_std
from decathlete.augmentation.transforms import (
    TRANSFORMS,
    IntensitySettings,
    IntensityTransform,
    PositiveInterval,
    Probability,
)
from decathlete.core.rng import stream


def _at_most_one(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[1] > 1:
        raise ValueError("must be at most 1")
    return interval


@TRANSFORMS.register("cutout")
class Cutout(IntensityTransform):
    """Replace the intensities of a box by the channel's mean, equally in all channels; the label stays."""

    class Settings(IntensitySettings):
        """Probability and size of the box."""

        probability: Probability = 0.2
        between: Annotated[PositiveInterval, AfterValidator(_at_most_one)] = Field(
            default=(0.1, 0.3), description="Range of the box's edge, share of the patch along each axis."
        )

    def draw(self, random: np.random.Generator, n_channels: int) -> dict[int, float]:
        """Draw one size for all channels of a sample."""
        drawn = super().draw(random, n_channels)
        size = next(iter(drawn.values()), 0.0)
        return dict.fromkeys(drawn, size)

    def __call__(self, rows_RZYX: Tensor, strength_R: Tensor, context: RowContext) -> Tensor:
        """Fill the box of each row, at a place that its sample's channels share."""
        centres_RD = np.stack([self._centre(context, row) for row in range(len(rows_RZYX))])
        inside = torch.ones((1,) * rows_RZYX.ndim, dtype=torch.bool, device=rows_RZYX.device)
        for axis, n in enumerate(self.patch.size):
            place_N = torch.arange(n, device=rows_RZYX.device, dtype=rows_RZYX.dtype)
            centre_R1 = to_device(centres_RD[:, axis], rows_RZYX.device)[:, None] * (n - 1)
            reach_R1 = (strength_R[:, None] * n / 2).clamp(min=0.5)
            inside = inside & along_axis((place_N - centre_R1).abs() <= reach_R1, rows_RZYX, axis + 1)
        mean, _ = mean_and_std(rows_RZYX)
        return torch.where(inside, mean, rows_RZYX)

    def _centre(self, context: RowContext, row: int) -> np.ndarray:
        """Draw the centre of a sample's box, 0..1 along each axis."""
        key = ("transform", context.transform, context.step, context.samples[row], "centre")
        return stream(context.seed, *key).random(len(self.patch.size))
