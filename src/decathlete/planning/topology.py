"""The shape of the network: where to pool, which kernels, how deep, how wide.

The rules are those of nnU-Net (Isensee et al., Nature Methods 18, 203-211, 2021, supplementary note on automated
method configuration), in their second version.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from decathlete.core.choices import Block, Norm
from decathlete.errors import PlanError
from decathlete.planning.network_spec import Axes, Dims, NetworkSpec

MIN_EDGE = 4
"""Feature maps never get shorter than this along a pooled axis, voxels."""
BASE_FEATURES = 32
MAX_FEATURES: dict[int, int] = {2: 512, 3: 320}
RESIDUAL_BLOCKS = (1, 3, 4)
"""Blocks of the first residual encoder stages; every deeper stage has :data:`DEEP_RESIDUAL_BLOCKS`."""
DEEP_RESIDUAL_BLOCKS = 6


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Strides and kernels of each stage, finest first, and the patch rounded up to what they divide.

    Attributes:
        strides: of each stage's first convolution, 1 or 2 along each axis; all 1 in the first stage.
        kernels: 1 or 3 along each axis.
    """

    patch_size: Axes
    strides: tuple[Axes, ...]
    kernels: tuple[Axes, ...]

    @property
    def divisor(self) -> Axes:
        """The patch is a multiple of this along each axis."""
        return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """How far to pool.

    Attributes:
        min_edge: feature maps never get shorter than this along a pooled axis, voxels.
        most_stages: at most so many resolutions, the full one included.
    """

    min_edge: int = MIN_EDGE
    most_stages: int | None = None


def make_topology(spacing: Sequence[float], size: Sequence[float], *, pooling: Pooling = Pooling()) -> Topology:
    """Pool again and again while a feature map stays at least ``min_edge`` long, and no further than allowed.

    Each time, the axes halved are those long enough whose spacing is within a factor 2 of the finest of these; a
    last single axis only while it is at least 3 ``min_edge`` long. An axis' kernel is 1 until its spacing has come
    within a factor 2 of the finest, then 3; the bottleneck's is 3 everywhere.

    Args:
        spacing: of each axis, mm.
        size: of the patch, voxels (fractions are rounded up to what the strides divide).

    Returns:
        A topology; of one stage alone if nothing can be pooled (see :func:`smallest_poolable`).
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
    divisor = [math.prod(axis) for axis in zip(*strides, strict=True)]
    patch = tuple(round_up(s, d) for s, d in zip(size, divisor, strict=True))
    return Topology(patch_size=patch, strides=tuple(strides), kernels=tuple(kernels))


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
    """The smallest multiple of ``divisor`` that is at least ``size`` (and at least ``divisor``)."""
    return max(math.ceil(size / divisor), 1) * divisor


def smallest_poolable(
    spacing: Sequence[float], size: Sequence[float], *, pooling: Pooling = Pooling()
) -> tuple[float, ...]:
    """``size``, grown where volumes are so small that not one pooling would be possible (a U-Net needs one)."""
    if len(make_topology(spacing, size, pooling=pooling).strides) > 1:
        return tuple(size)
    finest = min(spacing)
    return tuple(max(s, 3 * pooling.min_edge) if g / finest < 2 else s for s, g in zip(size, spacing, strict=True))


def make_network(
    topology: Topology,
    *,
    in_channels: int,
    out_channels: int,
    block: Block = "plain",
    norm: Norm = "instance",
    base_features: int = BASE_FEATURES,
    negative_slope: float = 0.01,
) -> NetworkSpec:
    """The network of a topology: features double from ``base_features`` up to ten (3D) or sixteen (2D) times it.

    Plain: two convolutions per stage. Residual: nnU-Net's residual encoder presets (1, 3, 4, 6, 6, ... blocks, one
    convolution per decoder stage; Isensee et al., MICCAI 2024). Every decoder output is supervised but the coarsest,
    as in nnU-Net, where that one has weight 0.
    """
    n = len(topology.strides)
    if n < 2:
        raise PlanError(
            f"a patch of {'×'.join(map(str, topology.patch_size))} voxels is too small for a U-Net",
            remedy=f"use a patch of at least {3 * MIN_EDGE} voxels along each finely spaced axis",
        )
    dims: Dims = 3 if len(topology.patch_size) == 3 else 2
    most = MAX_FEATURES[dims] * base_features // BASE_FEATURES
    residual = (*RESIDUAL_BLOCKS, *(DEEP_RESIDUAL_BLOCKS,) * n)[:n]
    return NetworkSpec(
        dims=dims,
        in_channels=in_channels,
        out_channels=out_channels,
        kernels=topology.kernels,
        strides=topology.strides,
        features=tuple(min(most, base_features * 2**stage) for stage in range(n)),
        encoder_convs=residual if block == "residual" else (2,) * n,
        decoder_convs=(1 if block == "residual" else 2,) * (n - 1),
        block=block,
        norm=norm,
        negative_slope=negative_slope,
        heads=default_heads(n),
    )


def default_heads(n_stages: int) -> int:
    """All decoder outputs but the coarsest."""
    return max(n_stages - 2, 1)


TOPOLOGY_FIELDS = ("strides", "kernels", "decoder_kernels", "features", "encoder_convs", "decoder_convs", "heads")
"""The fields of a network that :func:`rebuild_network_spec` replaces."""
_KEPT = ("norm_groups", "stem", "shortcut")
"""The fields that :func:`make_network` does not choose."""


def rebuild_network_spec(network: NetworkSpec, topology: Topology, *, base_features: int | None = None) -> NetworkSpec:
    """``network`` on another topology, of the same kind; as wide as it was unless ``base_features`` is given.

    As many outputs are trained on as the new topology would have, or at most as many as were chosen otherwise.
    """
    made = make_network(
        topology,
        in_channels=network.in_channels,
        out_channels=network.out_channels,
        block=network.block,
        norm=network.norm,
        base_features=base_features or network.features[0],
        negative_slope=network.negative_slope,
    ).revised(**{name: getattr(network, name) for name in _KEPT})
    if network.heads == default_heads(network.n_stages):
        return made
    return made.revised(heads=min(network.heads, made.n_stages - 1))


def shrink(
    spacing: Sequence[float],
    topology: Topology,
    yardstick: Sequence[float],
    *,
    smallest: int = MIN_EDGE,
    pooling: Pooling = Pooling(),
) -> Topology | None:
    """A patch of fewer voxels, shorter along the axis that is longest against its yardstick.

    Shortening one axis can change how the others are pooled and round them up; then it goes on until there are
    fewer voxels than before. ``None`` if no axis can shrink.

    Args:
        yardstick: of each axis, voxels: nnU-Net measures a patch against the median image.
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
    """One axis shorter by what the *shorter* patch must be divisible by, so that no valid size is skipped.

    Of 256 voxels pooled six times the next is 224, not 192.
    """
    patch = topology.patch_size
    by_ratio = sorted(range(len(patch)), key=lambda axis: (patch[axis] / yardstick[axis], axis), reverse=True)
    for axis in by_ratio:
        step = topology.divisor[axis]
        if patch[axis] - step < smallest:
            continue
        step = make_topology(spacing, _shorter(patch, axis, step), pooling=pooling).divisor[axis]
        smaller = make_topology(spacing, _shorter(patch, axis, step), pooling=pooling)
        if len(smaller.strides) > 1:
            return smaller
    return None


def _shorter(patch: Axes, axis: int, step: int) -> list[int]:
    return [size - step if a == axis else size for a, size in enumerate(patch)]
