"""Elastic deformation by cubic B-splines (Rueckert et al., TMI 18, 1999)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from decathlete.augmentation.displacement import MAX_SHARE, Displacement, n_control_points
from decathlete.augmentation.transforms import (
    TRANSFORMS,
    NonNegativeInterval,
    Patch,
    Probability,
    SpatialChange,
    SpatialTransform,
    TransformSettings,
)


def _does_not_fold(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[1] > MAX_SHARE:
        raise ValueError(f"must be at most {MAX_SHARE}: larger displacements can fold the image")
    return interval


@TRANSFORMS.register("elastic")
class Elastic(SpatialTransform):
    """Deform a patch smoothly, by random displacements of a coarse grid of control points.

    Image and label are deformed alike, without folds, in one resampling with rotation and scaling. Where a patch is
    rotated in its plane alone, only this plane is deformed, the same in all slices.
    """

    class Settings(TransformSettings):
        """Probability, smoothness and strength of the deformation."""

        probability: Probability = 0.2
        spacing: float = Field(default=0.25, ge=0.05, le=1)
        """Distance between control points, share of the patch's edge along each axis; larger is smoother."""
        between: Annotated[NonNegativeInterval, AfterValidator(_does_not_fold)] = (0.1, MAX_SHARE)
        """Range of the largest displacement of a control point along an axis, share of the distance between control
        points."""

    settings: Settings

    def __init__(self, settings: Settings, patch: Patch) -> None:
        super().__init__(settings, patch)
        self._spacing = tuple(settings.spacing * n for n in patch.size)
        self._grid = [n_control_points(n, s) for n, s in zip(patch.size, self._spacing, strict=True)]
        if patch.in_plane:
            self._grid[0] = 1

    def change(self, random: np.random.Generator) -> SpatialChange:
        """Draw the strength, then the displacement of each control point, uniform along each axis."""
        low, high = self.settings.between
        strength = low + (high - low) * random.random()
        points_DZYX = (2 * random.random((len(self._grid), *self._grid)) - 1) * strength
        points_DZYX *= np.reshape(self._spacing, (-1, *[1] * len(self._grid)))
        if self.patch.in_plane:
            points_DZYX[0] = 0
            points_DZYX = np.repeat(points_DZYX, n_control_points(self.patch.size[0], self._spacing[0]), axis=1)
        return SpatialChange(displacement=Displacement(points_DZYX=points_DZYX, spacing=self._spacing))
