"""Normalisation to the range 0 to 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decathlete.core.registry import ComponentSettings
from decathlete.planning.normalizations import NORMALIZATIONS, ChannelStatistics, Normalization
from decathlete.preprocessing.normalizations._scaling import shift_and_scale


@NORMALIZATIONS.register("rescale")
class RescaleNormalization(Normalization[ComponentSettings]):
    """Map each image's own lowest intensity to 0 and its highest to 1."""

    @classmethod
    def fit(cls, channel: ChannelStatistics) -> ComponentSettings:  # noqa: ARG003
        """Return the settings, of which there are none."""
        return cls.Settings()

    def apply(
        self,
        channel_ZYX: NDArray[np.float32],
        mask_ZYX: NDArray[np.bool_] | None,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """Return ``(channel - lowest) / (highest - lowest)``; 0 everywhere if the image is constant."""
        low, high = float(channel_ZYX.min()), float(channel_ZYX.max())
        return shift_and_scale(channel_ZYX, low, high - low)

    def describe(self) -> str:
        """Return the range."""
        return "rescaled to 0..1"
