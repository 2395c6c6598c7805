"""Interpolation along one axis: a banded matrix for cubic B-splines, two voxels for linear, one for nearest.

Grids are aligned at their outer faces: output voxel ``o`` of ``m`` lies at input coordinate
``(o + 1/2) * n / m - 1/2`` of ``n``, and the input is extended beyond its faces with its outermost values. This is what
``skimage.transform.resize(mode="edge", anti_aliasing=False)`` does.

Interpolation is linear in the voxels, so a cubic B-spline together with its recursive prefilter (Unser, *Splines: a
perfect fit for signal and image processing*, IEEE Signal Processing Magazine, 1999) is one matrix of ``m`` x ``n``. Off
its diagonal it fades to nothing, so long axes are taken in blocks: what a voxel costs does not grow with the axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

_PAD = 12
"""Edge voxels added before the prefilter: its memory fades by 0.27 per voxel, so what lies beyond counts 1e-7."""
_FADED = 1e-8
"""Entries of the matrix below this are nothing beside float32's rounding."""
_COLUMNS = 512
"""Columns of the matrix that are computed at a time."""
_BLOCK = 64
"""Output voxels of one product: with fewer, blocks read more of each other's input; with more, zeros are multiplied."""


def coordinates(n_in: int, n_out: int) -> NDArray[np.float64]:
    """Return the positions of the ``n_out`` output voxels on the input axis, in input voxels."""
    return (np.arange(n_out, dtype=np.float64) + 0.5) * (n_in / n_out) - 0.5


@dataclass(frozen=True, kw_only=True)
class Taps:
    """Interpolation from at most two voxels: ``(1 - weight) * x[low] + weight * x[high]``.

    Attributes:
        low, high: int64, one entry per output voxel.
        weight: float32, 0..1; all zero for the nearest voxel.
        blends: whether any weight is not zero, known without asking the device for it.
    """

    low: Tensor
    high: Tensor
    weight: Tensor
    blends: bool

    @classmethod
    def nearest(cls, n_in: int, n_out: int) -> Taps:
        """Interpolate by the nearest voxel (the later one of two equally near)."""
        index = torch.from_numpy(np.floor(np.clip(coordinates(n_in, n_out), 0, n_in - 1) + 0.5).astype(np.int64))
        return cls(low=index, high=index, weight=torch.zeros(n_out), blends=False)

    @classmethod
    def linear(cls, n_in: int, n_out: int) -> Taps:
        """Interpolate between the two nearest voxels."""
        at = torch.from_numpy(np.clip(coordinates(n_in, n_out), 0, n_in - 1))
        low = at.floor()
        weight = (at - low).float()
        return cls(low=low.long(), high=(low + 1).clamp(max=n_in - 1).long(), weight=weight, blends=bool(weight.any()))

    def to(self, device: torch.device) -> Taps:
        """Return a copy on ``device``."""
        return Taps(
            low=self.low.to(device), high=self.high.to(device), weight=self.weight.to(device), blends=self.blends
        )

    def part(self, start: int, stop: int, *, offset: int = 0) -> Taps:
        """Return the part for the outputs ``start`` to ``stop``, on an input without its first ``offset`` voxels."""
        low, high = self.low[start:stop] - offset, self.high[start:stop] - offset
        return Taps(low=low, high=high, weight=self.weight[start:stop], blends=self.blends)

    def touching(self, start: int, stop: int) -> tuple[int, int]:
        """Return the range of outputs that use only the input voxels ``start`` to ``stop``."""
        inside = torch.nonzero((self.low >= start) & (self.high < stop)).flatten()
        return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)

    def __call__(self, x: Tensor, axis: int) -> Tensor:
        """Interpolate ``x`` along ``axis``."""
        low, high, weight = (t.to(x.device) for t in (self.low, self.high, self.weight))
        first = x.index_select(axis, low)
        if not self.blends:
            return first
        return torch.lerp(first, x.index_select(axis, high), weight.view(-1, *[1] * (x.ndim - axis - 1)))


def spline_matrix(n_in: int, n_out: int, *, first: int = 0, last: int | None = None) -> Tensor:
    """Return the ``n_out`` x ``n_in`` float32 matrix of cubic B-spline interpolation; its rows add up to 1.

    Args:
        first, last: the columns to return; by default all.
    """
    voxels = np.pad(np.eye(n_in, (last or n_in) - first, -first), ((_PAD, _PAD), (0, 0)), mode="edge")
    coefficients = ndimage.spline_filter1d(voxels, order=3, axis=0, mode="mirror")
    at = coordinates(n_in, n_out) + _PAD
    start = np.floor(at).astype(np.int64) - 1
    end = len(coefficients) - 1
    matrix = np.zeros((n_out, coefficients.shape[1]))
    for k in range(4):
        weight = _cubic_bspline(at - (start + k))
        matrix += weight[:, None] * coefficients[np.clip(start + k, 0, end)]
    return torch.from_numpy(matrix.astype(np.float32))


def _cubic_bspline(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the centred cubic B-spline, whose support is -2..2."""
    x = np.abs(x)
    inner = 2 / 3 - x**2 + x**3 / 2
    outer = (2 - x) ** 3 / 6
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


@lru_cache(maxsize=64)
def _spline_blocks(n_in: int, n_out: int) -> tuple[tuple[int, Tensor], ...]:
    """``spline_matrix`` in blocks of rows: the first input voxel that a block needs, and its rows from there on.

    The matrix of a long axis is computed some columns at a time, and only what does not fade is kept.
    """
    kept: list[list[tuple[int, Tensor]]] = [[] for _ in range(0, n_out, _BLOCK)]
    for first in range(0, n_in, _COLUMNS):
        columns = spline_matrix(n_in, n_out, first=first, last=min(first + _COLUMNS, n_in))
        for parts, rows in zip(kept, torch.split(columns, _BLOCK), strict=True):
            if (rows.abs() > _FADED).any():
                parts.append((first, rows.clone()))
    return tuple(_join(parts) for parts in kept)


def _join(parts: list[tuple[int, Tensor]]) -> tuple[int, Tensor]:
    """Return the first column that does not fade of neighbouring parts, and the rows from there on."""
    rows = torch.cat([part for _, part in parts], dim=1)
    needed = torch.nonzero((rows.abs() > _FADED).any(dim=0)).flatten()
    first, last = int(needed[0]), int(needed[-1])
    return parts[0][0] + first, rows[:, first : last + 1].clone()


def cubic(x: Tensor, n_out: int, axis: int) -> Tensor:
    """``x`` interpolated by cubic B-splines to ``n_out`` voxels along one of its last three axes."""
    blocks = _spline_blocks(x.shape[axis], n_out)
    if len(blocks) == 1:
        return _product(x, *blocks[0], axis)
    out = x.new_empty((*x.shape[:axis], n_out, *x.shape[axis + 1 :]))
    for part, block in zip(torch.split(out, _BLOCK, dim=axis), blocks, strict=True):
        part.copy_(_product(x, *block, axis))
    return out


def _product(x: Tensor, first: int, matrix: Tensor, axis: int) -> Tensor:
    """Return the product of ``matrix`` (out x in) with ``x`` from the voxel ``first`` on."""
    x, matrix = x.narrow(axis, first, matrix.shape[1]), matrix.to(x.device)
    if axis == x.ndim - 1:
        return x @ matrix.T
    if axis == x.ndim - 2:
        return matrix @ x
    lead, tail = x.shape[:axis], x.shape[axis + 1 :]
    return (matrix @ x.reshape(*lead, x.shape[axis], -1)).reshape(*lead, len(matrix), *tail)
