"""Normalisation of CT: a fixed scale for the whole dataset."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from decathlete.core.registry import ComponentSettings
from decathlete.planning.normalizations import NORMALIZATIONS, ChannelStatistics, Normalization
from decathlete.preprocessing.normalizations._scaling import TINY, shift_and_scale


class CtSettings(ComponentSettings):
    """Intensities in HU, statistics of the foreground of the training cases."""

    clip_low: float = Field(allow_inf_nan=False)
    """Intensity that lower ones are clipped to, HU."""
    clip_high: float = Field(allow_inf_nan=False)
    """Intensity that higher ones are clipped to, HU."""
    mean: float = Field(allow_inf_nan=False)
    """Intensity that becomes 0, HU."""
    std: float = Field(ge=0, allow_inf_nan=False)
    """Standard deviation that becomes 1, HU."""


@NORMALIZATIONS.register("ct")
class CtNormalization(Normalization[CtSettings]):
    """Clip to a fixed range, subtract a fixed mean, divide by a fixed standard deviation."""

    Settings = CtSettings

    @classmethod
    def fit(cls, channel: ChannelStatistics) -> CtSettings:
        """Clip to the 0.5 and 99.5 percentiles of the foreground."""
        intensity = channel.intensity
        return CtSettings(
            clip_low=intensity.percentile_00_5,
            clip_high=intensity.percentile_99_5,
            mean=intensity.mean,
            std=max(intensity.std, TINY),
        )

    def apply(
        self,
        channel_ZYX: NDArray[np.float32],
        mask_ZYX: NDArray[np.bool_] | None,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """Return ``(clipped channel - mean) / std``."""
        clipped = np.clip(channel_ZYX, self.settings.clip_low, self.settings.clip_high)
        return shift_and_scale(clipped, self.settings.mean, max(self.settings.std, TINY))

    @property
    def clip_range(self) -> tuple[float, float]:
        """Lowest and highest intensity that remain distinct, HU."""
        return self.settings.clip_low, self.settings.clip_high

    def describe(self) -> str:
        """Return the formula with its numbers."""
        s = self.settings
        return f"clip to {s.clip_low:.4g}..{s.clip_high:.4g}, then (x - {s.mean:.4g}) / {s.std:.4g}"

    def reason(self, channel: ChannelStatistics) -> str:  # noqa: ARG002
        """Return why the scale is fixed."""
        return "a fixed scale (HU), clipped to the 0.5 and 99.5 percentiles of the foreground"
