"""The grid of windows over a volume, and the weights of their voxels.

Grid and weights are products of one-dimensional grids and profiles. So the sum of all weights at a voxel is a product
too, and no map of weights is accumulated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import pad

from decathlete.core.choices import Blend
from decathlete.core.geometry import Box, Shape

SIGMA = 1 / 8
"""Standard deviation of the Gaussian importance, as a part of the patch (nnU-Net, Nature Methods 18, 203-211, 2021)."""


def window_starts(size: int, patch: int, overlap: float) -> tuple[int, ...]:
    """Return the first voxels of windows of ``patch`` voxels along an axis of ``size`` voxels.

    The fewest windows whose neighbours share at least ``overlap`` (0 to below 1) of the patch, evenly spaced: the
    first begins at one border, the last ends at the other.
    """
    room = max(size - patch, 0)
    if room == 0:
        return (0,)
    step = max(1.0, patch * (1 - overlap))
    n = math.ceil(room / step - 1e-9) + 1
    return tuple(round(room / (n - 1) * i) for i in range(n))


def count_windows(shape: Shape, patch_size: Sequence[int], overlap: float) -> int:
    """Return the number of windows over a volume of ``shape`` (Z, Y, X); of 2D windows, those of all its slices.

    >>> count_windows((10, 96, 96), (64, 64), overlap=0.5)
    40
    """
    patch = (1,) * (len(shape) - len(patch_size)) + tuple(patch_size)
    return math.prod(len(window_starts(size, length, overlap)) for size, length in zip(shape, patch, strict=True))


def importance_profile(patch: int, blend: Blend) -> Tensor:
    """Return the weights along one axis of a window: ones, or a Gaussian with peak 1; float32, shape (patch,).

    The centre is voxel ``patch // 2``, as in nnU-Net; at the border, 4 standard deviations away, the weight is 3e-4.
    """
    if blend == "constant":
        return torch.ones(patch)
    distance = (torch.arange(patch, dtype=torch.float64) - patch // 2) / (patch * SIGMA)
    return torch.exp(-0.5 * distance**2).float()


def importance(patch: tuple[int, ...], blend: Blend) -> Tensor:
    """Return the weights of a window's voxels: float32, shape ``patch``, peak 1, never 0."""
    weights = torch.ones(())
    for size in patch:
        weights = weights[..., None] * importance_profile(size, blend)
    return weights


@dataclass(frozen=True, kw_only=True)
class WindowGrid:
    """The windows of one volume, ordered along the first axis, then the second, then the third.

    Attributes:
        shape: of the volume, voxels.
        patch: shape of a window; (1, y, x) for a 2D model, whose windows are slices or parts of slices.
        overlap: least share of the patch that neighbours have in common, 0 to below 1.
        blend: weights of a window's voxels.
    """

    shape: Shape
    patch: Shape
    overlap: float
    blend: Blend = "gaussian"

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Zeros to add before and after each axis, so that the volume holds at least one window."""
        missing = [max(p - s, 0) for s, p in zip(self.shape, self.patch, strict=True)]
        return tuple((m // 2, m - m // 2) for m in missing)

    @property
    def padded(self) -> Shape:
        """The volume's shape with the padding."""
        z, y, x = (max(s, p) for s, p in zip(self.shape, self.patch, strict=True))
        return (z, y, x)

    @property
    def starts(self) -> tuple[tuple[int, ...], ...]:
        """First voxels of the windows along each axis of the padded volume."""
        return tuple(window_starts(s, p, self.overlap) for s, p in zip(self.padded, self.patch, strict=True))

    @property
    def boxes(self) -> list[Box]:
        """All windows in the padded volume, in order."""
        pz, py, px = self.patch
        return [Box(start=(z, y, x), stop=(z + pz, y + py, x + px)) for z, y, x in product(*self.starts)]

    def pad(self, image_CZYX: Tensor) -> Tensor:
        """Pad the volume with zeros where it is smaller than a window; return it as it is if it is nowhere smaller."""
        if self.padded == self.shape:
            return image_CZYX
        flat = [n for before_after in reversed(self.padding) for n in before_after]
        return pad(image_CZYX, flat)

    def weight_sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """Along each axis, the summed profiles of the windows at every voxel; their outer product weighs a volume."""
        sums = []
        for size, patch, starts in zip(self.padded, self.patch, self.starts, strict=True):
            total = torch.zeros(size)
            for start in starts:
                total[start : start + patch] += importance_profile(patch, self.blend)
            sums.append(total)
        return (sums[0], sums[1], sums[2])
