"""Normalisation by each image's own mean and standard deviation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decathlete.core.registry import ComponentSettings
from decathlete.planning.normalizations import NORMALIZATIONS, ChannelStatistics, Normalization
from decathlete.preprocessing.normalizations._scaling import TINY, shift_and_scale

NONZERO_BELOW = 0.75
"""Only non-zero voxels count where the crop keeps less than this share of the median image."""


class ZScoreSettings(ComponentSettings):
    """Which voxels mean and standard deviation are computed over."""

    nonzero_only: bool = False
    """Compute mean and standard deviation over the object alone, and set all other voxels to 0."""


@NORMALIZATIONS.register("zscore")
class ZScoreNormalization(Normalization[ZScoreSettings]):
    """Subtract each image's own mean and divide by its own standard deviation."""

    Settings = ZScoreSettings

    @classmethod
    def fit(cls, channel: ChannelStatistics) -> ZScoreSettings:
        """Use the object alone where the crop removes more than a quarter of the median image."""
        return ZScoreSettings(nonzero_only=channel.crop_ratio < NONZERO_BELOW)

    def apply(self, channel_ZYX: NDArray[np.float32], mask_ZYX: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """Return the z-scores; 0 everywhere if the image is constant."""
        mask_ZYX = mask_ZYX if self.settings.nonzero_only else None
        voxels = channel_ZYX if mask_ZYX is None else channel_ZYX[mask_ZYX]
        if not voxels.size:
            return np.zeros_like(channel_ZYX)
        mean, std = float(voxels.mean(dtype=np.float64)), float(voxels.std(dtype=np.float64))
        if std <= TINY * float(np.abs(voxels).max()):
            std = 0.0
        scaled = shift_and_scale(channel_ZYX, mean, std)
        return scaled if mask_ZYX is None else np.where(mask_ZYX, scaled, np.float32(0))

    @property
    def needs_mask(self) -> bool:
        """Whether only the object counts."""
        return self.settings.nonzero_only

    def describe(self) -> str:
        """Return which voxels count."""
        return "z-score of its non-zero voxels" if self.settings.nonzero_only else "z-score"

    def reason(self, channel: ChannelStatistics) -> str:
        """Return which voxels count, and why."""
        which = "over its non-zero voxels" if self.settings.nonzero_only else "over all its voxels"
        return (
            f"each image by its own mean and deviation {which}, since cropping keeps {channel.crop_ratio:.0%} of the "
            "median image (non-zero voxels only below 75 %)"
        )
