"""Loss of a whole channel (Neverova et al., TPAMI 38, 2016: ModDrop)."""

from __future__ import annotations

import numpy as np
from pydantic import Field
from torch import Tensor

from decathlete.augmentation.draws import RowContext
from decathlete.augmentation.rows import per_row
from decathlete.augmentation.transforms import (
    TRANSFORMS,
    IntensitySettings,
    IntensityTransform,
    Interval,
    Probability,
)


@TRANSFORMS.register("channel_dropout")
class ChannelDropout(IntensityTransform):
    """Replace one channel by a constant, so that no structure depends on one channel alone.

    Images with one channel are never changed.
    """

    class Settings(IntensitySettings):
        """Probability, and the constant."""

        probability: Probability = 0.1
        between: Interval = Field(
            default=(0.0, 0.0), description="Range of the constant; 0 is the mean of a normalised image."
        )

    def draw(self, random: np.random.Generator, n_channels: int) -> dict[int, float]:
        """Choose the channel of a sample that is changed; the probability of a channel decides about it, too."""
        drawn = super().draw(random, n_channels)
        if n_channels == 1 or not drawn:
            return {}
        channel = sorted(drawn)[int(random.integers(len(drawn)))]
        return {channel: drawn[channel]}

    def __call__(self, rows_RZYX: Tensor, strength_R: Tensor, context: RowContext) -> Tensor:
        """Return the constant everywhere."""
        return per_row(strength_R, rows_RZYX).expand_as(rows_RZYX)
