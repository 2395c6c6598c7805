"""No normalisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decathlete.core.registry import ComponentSettings
from decathlete.planning.normalizations import NORMALIZATIONS, ChannelStatistics, Normalization


@NORMALIZATIONS.register("none")
class NoNormalization(Normalization[ComponentSettings]):
    """Leave intensities unchanged."""

    @classmethod
    def fit(cls, channel: ChannelStatistics) -> ComponentSettings:  # noqa: ARG003
        """Return the settings, of which there are none."""
        return cls.Settings()

    def apply(
        self,
        channel_ZYX: NDArray[np.float32],
        mask_ZYX: NDArray[np.bool_] | None,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """Return the channel as it is."""
        return channel_ZYX

    def describe(self) -> str:
        """Return that nothing is changed."""
        return "unchanged"
