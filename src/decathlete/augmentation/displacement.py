"""Smooth displacement fields: cubic B-splines over a coarse grid of control points (Rueckert et al., TMI 18, 1999).

Letters: D spatial axes of a patch (2 or 3), N voxels along one of them, K control points along it; spatial axes are
written ZYX, 2D lacks Z.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decathlete.augmentation.device import to_device
from decathlete.planning.network_spec import Axes

MAX_SHARE = 0.4
"""Largest displacement of a control point that cannot fold the patch, share of the distance between control points
(Choi & Lee, Information Visualization 2000: 0.403 in 3D, 0.489 in 2D)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Displacement:
    """The displacement field of one sample.

    Attributes:
        points_DZYX: displacement of each control point along each axis, voxels: [D, control points along each axis].
        spacing: distance between control points along each axis, voxels.
    """

    points_DZYX: NDArray[np.float64]
    spacing: tuple[float, ...]

    def reach(self) -> NDArray[np.float64]:
        """Return the largest displacement along each axis, voxels: splines stay within their control points."""
        reach_D: NDArray[np.float64] = np.abs(self.points_DZYX).reshape(len(self.points_DZYX), -1).max(axis=1)
        return reach_D

    def at_voxels(self, patch_size: Axes, device: torch.device) -> Tensor:
        """Return the displacement of every voxel of the patch, voxels: float32 [D, *patch_size]."""
        field = to_device(self.points_DZYX, device)
        for axis, (n, spacing) in enumerate(zip(patch_size, self.spacing, strict=True)):
            weights_NK = to_device(spline_weights(n, spacing), device)
            # An elementwise sum: under autocast, a matrix product would be in half precision.
            rows = field.movedim(axis + 1, -1)
            out = torch.zeros((*rows.shape[:-1], n), device=device)
            for k in range(rows.shape[-1]):
                out.addcmul_(rows[..., k : k + 1], weights_NK[:, k])
            field = out.movedim(-1, axis + 1)
        return field


def n_control_points(n: int, spacing: float) -> int:
    """Return the number of control points along an axis of ``n`` voxels: one before its start, two after its end."""
    return floor((n - 1) / spacing) + 4


def spline_weights(n: int, spacing: float) -> NDArray[np.float64]:
    """Return the weight of each control point in each voxel along an axis: [N, K], each row adds up to 1."""
    place_N = np.arange(n) / spacing
    distance_NK = np.abs(place_N[:, None] - (np.arange(n_control_points(n, spacing)) - 1))
    near = 2 / 3 - distance_NK**2 + distance_NK**3 / 2
    far = np.clip(2 - distance_NK, 0, None) ** 3 / 6
    return np.where(distance_NK < 1, near, far)
