"""Magnification about the centre of the patch."""

from __future__ import annotations

import numpy as np

from decathlete.augmentation.transforms import (
    TRANSFORMS,
    Patch,
    PositiveInterval,
    SpatialChange,
    SpatialTransform,
    TransformSettings,
)


@TRANSFORMS.register("scaling")
class Scaling(SpatialTransform):
    """Magnify or reduce, by the same factor along every axis (in the plane alone where only it is rotated)."""

    class Settings(TransformSettings):
        """Range of the factor."""

        between: PositiveInterval = (0.7, 1.4)
        """Range of the side of the region shown in a patch / side of the patch: below 1 magnifies."""

    def __init__(self, settings: Settings, patch: Patch) -> None:
        super().__init__(settings, patch)
        self._low, self._high = settings.between

    def change(self, random: np.random.Generator) -> SpatialChange:
        """Draw one factor."""
        factor = self._low + (self._high - self._low) * random.random()
        dims = len(self.patch.size)
        return SpatialChange(
            matrix=np.diag([1.0 if self.patch.in_plane and axis == 0 else factor for axis in range(dims)])
        )
