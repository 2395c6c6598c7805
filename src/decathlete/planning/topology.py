"""The topology of a network: how often each axis is halved, and the kernels that follow from the voxel spacing.

The rules are those of nnU-Net (Isensee et al., Nature Methods 18, 203-211, 2021, supplementary note on automated
method configuration), in their second version.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from decathlete.planning.network_spec import Axes

MIN_EDGE = 4
"""Shortest feature map along a pooled axis, voxels."""


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Strides and kernels of each stage, finest first, and the patch size rounded up to a multiple of the strides.

    Attributes:
        strides: stride of each stage's first convolution, 1 or 2 along each axis; all 1 in the first stage.
        kernels: kernel size of each stage, 1 or 3 along each axis.
        multiple: the patch size is also a multiple of this along each axis.
    """

    patch_size: Axes
    strides: tuple[Axes, ...]
    kernels: tuple[Axes, ...]
    multiple: int = 1

    @property
    def divisor(self) -> Axes:
        """The patch size is a multiple of this along each axis."""
        return tuple(math.lcm(math.prod(axis), self.multiple) for axis in zip(*self.strides, strict=True))


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """How far a network pools.

    Attributes:
        min_edge: shortest feature map along a pooled axis, voxels.
        most_stages: largest number of resolutions, the full one included; ``None``: no limit. With 1 nothing is pooled.
        multiple: the patch size must be a multiple of this along each axis, whatever is pooled.
    """

    min_edge: int = MIN_EDGE
    most_stages: int | None = None
    multiple: int = 1

    @property
    def least_stages(self) -> int:
        """Number of resolutions that the network needs."""
        return 1 if self.most_stages == 1 else 2


def make_topology(spacing: Sequence[float], size: Sequence[float], *, pooling: Pooling = Pooling()) -> Topology:
    """Return the topology for a patch: pool while feature maps stay at least ``min_edge`` long, within the limits.

    Each step halves the axes that are long enough and whose spacing is within a factor of 2 of the finest of these; a
    single axis is only halved while it is at least 3 ``min_edge`` long. The kernel along an axis is 1 until its spacing
    is within a factor of 2 of the finest, then 3; in the last stage it is 3 along every axis.

    Args:
        spacing: spacing of each axis, mm.
        size: size of the patch, voxels. It is rounded up to a multiple of the strides.

    Returns:
        A topology of one stage if nothing can be pooled (see :func:`smallest_poolable`).
    """
    n = len(size)
    gaps, edges, kernel = list(spacing), [float(s) for s in size], [1] * n
    strides, kernels = [(1,) * n], []
    most = math.inf if pooling.most_stages is None else pooling.most_stages
    while len(strides) < most and (axes := _axes_to_pool(gaps, edges, pooling.min_edge)):
        kernel = [3 if k == 3 or g / min(gaps) < 2 else 1 for k, g in zip(kernel, gaps, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in axes else 1 for axis in range(n)))
        for axis in axes:
            gaps[axis] *= 2
            edges[axis] = math.ceil(edges[axis] / 2)
    kernels.append((3,) * n)
    found = Topology(patch_size=(), strides=tuple(strides), kernels=tuple(kernels), multiple=pooling.multiple)
    patch = tuple(round_up(s, d) for s, d in zip(size, found.divisor, strict=True))
    return Topology(patch_size=patch, strides=found.strides, kernels=found.kernels, multiple=pooling.multiple)


def _axes_to_pool(gaps: Sequence[float], edges: Sequence[float], min_edge: int) -> list[int]:
    long_enough = [axis for axis, edge in enumerate(edges) if edge >= 2 * min_edge]
    if not long_enough:
        return []
    finest = min(gaps[axis] for axis in long_enough)
    axes = [axis for axis in long_enough if gaps[axis] / finest < 2]
    if len(axes) == 1 and edges[axes[0]] < 3 * min_edge:
        return []
    return axes


def round_up(size: float, divisor: int) -> int:
    """Return the smallest multiple of ``divisor`` that is at least ``size`` (and at least ``divisor``)."""
    return max(math.ceil(size / divisor), 1) * divisor


def smallest_poolable(
    spacing: Sequence[float], size: Sequence[float], *, pooling: Pooling = Pooling()
) -> tuple[float, ...]:
    """Return ``size``, enlarged if the volume is too small for a single pooling and the network needs one."""
    if len(make_topology(spacing, size, pooling=pooling).strides) >= pooling.least_stages:
        return tuple(size)
    finest = min(spacing)
    return tuple(max(s, 3 * pooling.min_edge) if g / finest < 2 else s for s, g in zip(size, spacing, strict=True))


def shrink(
    spacing: Sequence[float],
    topology: Topology,
    yardstick: Sequence[float],
    *,
    smallest: int = MIN_EDGE,
    pooling: Pooling = Pooling(),
) -> Topology | None:
    """Return a topology whose patch has fewer voxels; ``None`` if no axis can be shortened.

    The axis that is longest relative to its yardstick is shortened. This can change how the other axes are pooled and
    round them up; then axes are shortened further until the patch has fewer voxels than before.

    Args:
        yardstick: size along each axis to compare with, voxels. nnU-Net compares with the median image.
        smallest: shortest patch along any axis, voxels.
    """
    seen = {topology.patch_size}
    trial = _shrink_once(spacing, topology, yardstick, smallest, pooling)
    while trial and trial.patch_size not in seen:
        if math.prod(trial.patch_size) < math.prod(topology.patch_size):
            return trial
        seen.add(trial.patch_size)
        trial = _shrink_once(spacing, trial, yardstick, smallest, pooling)
    return None


def _shrink_once(
    spacing: Sequence[float], topology: Topology, yardstick: Sequence[float], smallest: int, pooling: Pooling
) -> Topology | None:
    """Shorten one axis by the divisor of the *shorter* patch, so that no valid size is skipped.

    After 256 voxels, pooled six times, comes 224, not 192.
    """
    patch = topology.patch_size
    for axis in _longest_first(patch, yardstick):
        step = topology.divisor[axis]
        if patch[axis] - step < smallest:
            continue
        step = make_topology(spacing, _shorter(patch, axis, step), pooling=pooling).divisor[axis]
        smaller = make_topology(spacing, _shorter(patch, axis, step), pooling=pooling)
        if len(smaller.strides) >= pooling.least_stages:
            return smaller
    return None


def shorten(topology: Topology, yardstick: Sequence[float], *, divisor: Axes) -> Topology | None:
    """Return the topology with a shorter patch and the same strides; ``None`` if no axis can be shortened.

    The axis that is longest relative to its yardstick is shortened. Along pooled axes, the coarsest maps stay at least
    two voxels long.

    Args:
        yardstick: see :func:`shrink`.
        divisor: the patch stays a multiple of this along each axis, voxels.
    """
    patch = topology.patch_size
    for axis in _longest_first(patch, yardstick):
        step = divisor[axis]
        if patch[axis] - step >= max(2 * step, MIN_EDGE):
            return replace(topology, patch_size=tuple(_shorter(patch, axis, step)))
    return None


def _longest_first(patch: Axes, yardstick: Sequence[float]) -> list[int]:
    return sorted(range(len(patch)), key=lambda axis: (patch[axis] / yardstick[axis], axis), reverse=True)


def _shorter(patch: Axes, axis: int, step: int) -> list[int]:
    return [size - step if a == axis else size for a, size in enumerate(patch)]
