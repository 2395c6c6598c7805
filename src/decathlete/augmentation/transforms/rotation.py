"""Rotation about the centre of the patch."""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np
from pydantic import Field

from decathlete.augmentation.transforms import (
    TRANSFORMS,
    Matrix,
    Patch,
    SpatialChange,
    SpatialTransform,
    TransformSettings,
)
from decathlete.planning.network_spec import Axes, Dims


@TRANSFORMS.register("rotation")
class Rotation(SpatialTransform):
    """Rotate about the centre of the patch.

    Angles are in voxels' coordinates, as nnU-Net's are: on an anisotropic grid only the plane is rotated, so that
    nothing is sheared.
    """

    class Settings(TransformSettings):
        """Angles of the rotation."""

        degrees: float | None = Field(default=None, ge=0, le=180)
        """Maximum angle, degrees: each angle is uniform in -degrees..degrees. Unset: nnU-Net's rule by the shape of
        the patch: 30 about every axis in 3D; 180 where only the plane is rotated, but 15 in 2D where one side of the
        patch is more than 1.5 times the other (a greater angle would turn its content out of the frame), and 30 where
        the labels have mirror pairs and the plane contains the axis from left to right."""
        in_plane: bool | None = None
        """3D: rotate about the first axis alone; no transform then changes the first axis but mirroring. Unset: where
        the longest side of the patch is more than 3 times its first."""

        def is_in_plane(self, patch_size: Axes) -> bool:
            """Return whether a 3D patch is rotated (and scaled) in the plane of its last two axes alone."""
            if len(patch_size) == 2:
                return False
            return max(patch_size) / patch_size[0] > 3 if self.in_plane is None else self.in_plane

        def max_degrees(self, patch_size: Axes, *, side_axis: int | None = None) -> float:
            """Return the greatest angle for a patch, degrees.

            Args:
                side_axis: see :class:`~decathlete.augmentation.transforms.Patch`. Half a turn equals flips along both
                    axes of the plane, of which one swaps the labels of mirror pairs; the turn does not.
            """
            if self.degrees is not None:
                return self.degrees
            is_in_plane = self.is_in_plane(patch_size)
            if len(patch_size) == 2 and max(patch_size) / min(patch_size) > 1.5:
                return 15.0
            if len(patch_size) == 3 and not is_in_plane:
                return 30.0
            has_sides = side_axis is not None and not (is_in_plane and side_axis == 0)
            return 30.0 if has_sides else 180.0

    def __init__(self, settings: Settings, patch: Patch) -> None:
        super().__init__(settings, patch)
        self._max_angle = settings.max_degrees(patch.size, side_axis=patch.side_axis) * pi / 180

    def change(self, random: np.random.Generator) -> SpatialChange:
        """Draw one angle about each axis; a rotation in the plane uses the first."""
        angles = (2 * random.random(3) - 1) * self._max_angle
        if len(self.patch.size) == 2:
            return SpatialChange(matrix=_plane_rotation(2, (0, 1), angles[0]))
        matrix = _plane_rotation(3, (1, 2), angles[0])
        if not self.patch.in_plane:
            matrix = matrix @ _plane_rotation(3, (0, 2), angles[1]) @ _plane_rotation(3, (0, 1), angles[2])
        return SpatialChange(matrix=matrix)


def _plane_rotation(dims: Dims, plane: tuple[int, int], angle: float) -> Matrix:
    matrix = np.eye(dims)
    a, b = plane
    matrix[a, a] = matrix[b, b] = cos(angle)
    matrix[a, b], matrix[b, a] = -sin(angle), sin(angle)
    return matrix
