"""The two transforms of a NIfTI header, qform and sform, where they disagree."""

from __future__ import annotations

from itertools import product

import numpy as np

from decathlete.core.geometry import Geometry

TRANSFORM_TOLERANCE_MM = 1e-2
"""Maximum distance between the positions of a voxel by qform and by sform that is no disagreement, mm."""


def transform_tolerance_mm(geometry: Geometry) -> float:
    """Return :data:`TRANSFORM_TOLERANCE_MM`, or a tenth of a voxel where that is less."""
    return min(geometry.tolerance_ZYX(TRANSFORM_TOLERANCE_MM))


def transform_distance_mm(geometry: Geometry) -> float:
    """Return the greatest distance between a voxel's positions by qform and by sform; 0 if only one is set."""
    header = geometry.header
    if header.qform_code <= 0 or header.sform_code <= 0:
        return 0.0
    qform, sform = (np.array(matrix or geometry.affine) for matrix in (header.qform, header.sform))
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in geometry.shape_ZYX))]).T
    return float(np.linalg.norm(((qform - sform) @ corners)[:3], axis=0).max())


def describe_disagreement(geometry: Geometry) -> str | None:
    """Return a sentence if qform and sform are both set and disagree, else ``None``."""
    distance = transform_distance_mm(geometry)
    if distance <= transform_tolerance_mm(geometry):
        return None
    codes = geometry.header
    return (
        f"qform (code {codes.qform_code}) and sform (code {codes.sform_code}) place the image up to {distance:.3g} mm "
        "apart; the sform is used"
    )
