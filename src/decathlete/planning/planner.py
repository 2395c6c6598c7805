"""From the fingerprint to the plan, by nnU-Net v2's published rules, with the reason for each choice in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from decathlete.core.geometry import Orientation, Triple
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import PlanError
from decathlete.planning import explain as say
from decathlete.planning.fingerprint import Fingerprint, IntensityStatistics
from decathlete.planning.grid import AxisOrder, axis_order, full_spacing, is_flat, median_size, permute, whole
from decathlete.planning.memory import batch_that_fits, cap_batch, fill
from decathlete.planning.network_spec import Dims, NetworkSpec
from decathlete.planning.plan import Normalization, Order, Plan, Range, Resampling, TrainedOn
from decathlete.planning.topology import Block, Norm, Topology, make_network, make_topology, shrink, smallest_poolable

INITIAL_EDGE: dict[int, int] = {2: 2048, 3: 256}
"""The first patch has the volume of a square or cube of this edge, voxels, and is as long along every axis in mm."""
NONZERO_BELOW = 0.75
"""z-score looks at non-zero voxels only where the crop keeps less than this share of the median image."""
SCHEMES: dict[str, Literal["ct", "zscore", "rescale", "none"]] = {
    "ct": "ct",
    "zscore": "zscore",
    "nonorm": "none",
    "rescale_to_0_1": "rescale",
    "rgb_to_0_1": "rescale",
}
"""Channel name (any case) -> normalisation; every other name is z-scored."""


@dataclass(frozen=True, kw_only=True)
class _Sized:
    """A patch, its network and the batch that fits, and whether the patch had to shrink."""

    topology: Topology
    network: NetworkSpec
    batch_size: int
    batch_that_fits: int
    shrunk: bool


def make_plan(
    spec: DatasetSpec,
    fingerprint: Fingerprint,
    *,
    dims: Dims,
    memory_gb: float = 8.0,
    orientation: Orientation | None = None,
    order: Order = "nnunet",
    block: Block = "plain",
    norm: Norm = "instance",
    axes: AxisOrder | None = None,
) -> Plan:
    """Plan one model.

    Args:
        memory_gb: of the GPU that is planned for, GB; patch and batch are sized for it (see ``memory``).
        orientation: must be the fingerprint's, if given.
        axes: the working order of the axes, instead of the coarsest first.

    Raises:
        PlanError: a 3D plan for single slices; a memory target nothing fits into; a fingerprint of another
            orientation or of other channels.
    """
    _check(spec, fingerprint, dims=dims, memory_gb=memory_gb, orientation=orientation)
    spacing, coarse = full_spacing(fingerprint)
    working = axes or axis_order(fingerprint, spacing)
    target, median = permute(spacing, working), permute(median_size(fingerprint, spacing), working)
    sized = _size(
        target[-dims:],
        median[-dims:],
        channels=(len(spec.channels), spec.labels.n_outputs),
        memory_gb=memory_gb,
        dataset_voxels=float(np.prod(median)) * len(fingerprint.cases),
        kind=(block, norm),
    )
    median_shape = whole(median if dims == 3 else (_median_slices(fingerprint, working), *median[1:]))
    normalization = _normalization(spec.channels, fingerprint)
    return Plan(
        dataset=spec.name,
        dims=dims,
        channels=spec.channels,
        labels=spec.labels,
        orientation=fingerprint.orientation,
        axis_order=working,
        order=order,
        target_spacing=target if dims == 3 else (None, target[1], target[2]),
        median_shape=median_shape,
        patch_size=sized.topology.patch_size,
        batch_size=sized.batch_size,
        normalization=normalization,
        resampling=Resampling(),
        network=sized.network,
        trained_on=_trained_on(fingerprint, working),
        fingerprint_digest=fingerprint.digest(),
        reasons={
            "orientation": say.why_orientation(fingerprint.orientation),
            "axis_order": say.why_axis_order(working, target, chosen=axes is not None),
            "order": say.why_order(order),
            "target_spacing": say.why_spacing(dims, coarse=coarse is not None),
            "patch_size": say.why_patch(median[-dims:], sized.topology, shrunk=sized.shrunk, memory_gb=memory_gb),
            "batch_size": say.why_batch(sized.batch_size, sized.batch_that_fits, memory_gb=memory_gb),
            "normalization": say.why_normalization(normalization, spec.channels, _crop_ratio(fingerprint)),
            "resampling": say.why_resampling(Resampling()),
            "mirror_axes": say.why_mirroring(),
            **say.why_network(sized.network, sized.topology.patch_size),
        },
    )


def _check(
    spec: DatasetSpec, fingerprint: Fingerprint, *, dims: Dims, memory_gb: float, orientation: Orientation | None
) -> None:
    if len(fingerprint.intensity) != len(spec.channels) or not fingerprint.cases:
        raise PlanError(
            f"the fingerprint is not of the dataset {spec.name}", remedy="run `decathlete preprocess` again"
        )
    if orientation not in (None, fingerprint.orientation):
        raise PlanError(
            f"the fingerprint was made in {fingerprint.orientation} orientation, the plan asks for {orientation}",
            remedy="make the fingerprint in the orientation of the plan",
        )
    if dims == 3 and is_flat(fingerprint):
        raise PlanError("a 3D model needs volumes, these images are single slices", remedy="plan with --dim 2")
    if not memory_gb > 0:
        raise PlanError(f"a memory target of {memory_gb:g} GB holds nothing", remedy="give --memory in GB, e.g. 8")


def _size(
    spacing: Sequence[float],
    median: Sequence[float],
    *,
    channels: tuple[int, int],
    memory_gb: float,
    dataset_voxels: float,
    kind: tuple[Block, Norm],
) -> _Sized:
    """The largest patch that fits, shrunk from the median image, and the batch for it."""

    def network_of(topology: Topology) -> NetworkSpec:
        return make_network(topology, in_channels=channels[0], out_channels=channels[1], block=kind[0], norm=kind[1])

    topology = make_topology(spacing, smallest_poolable(spacing, _initial_patch(spacing, median)))
    network, shrunk = network_of(topology), False
    while fill(network, topology.patch_size, memory_gb=memory_gb) > 1:
        smaller = shrink(spacing, topology, median)
        if smaller is None:
            raise PlanError(
                f"not even a patch of {'×'.join(map(str, topology.patch_size))} voxels fits into {memory_gb:g} GB",
                remedy="raise --memory",
            )
        topology, network, shrunk = smaller, network_of(smaller), True
    fits = batch_that_fits(network, topology.patch_size, memory_gb=memory_gb)
    batch = cap_batch(fits, dataset_voxels=dataset_voxels, patch_size=topology.patch_size)
    return _Sized(topology=topology, network=network, batch_size=batch, batch_that_fits=fits, shrunk=shrunk)


def _initial_patch(spacing: Sequence[float], median: Sequence[float]) -> list[float]:
    """As long along every axis in mm, of a fixed volume in voxels, nowhere longer than the median image."""
    n = len(spacing)
    density = np.array([1 / s for s in spacing])
    scale = (INITIAL_EDGE[n] ** n / np.prod(density)) ** (1 / n)
    return [min(round(edge), limit) for edge, limit in zip((density * scale).tolist(), median, strict=True)]


def _median_slices(fingerprint: Fingerprint, working: AxisOrder) -> float:
    """Slices of the median case: a 2D plan keeps them as they are."""
    return float(np.median([case.shape[working[0]] for case in fingerprint.cases]))


def _crop_ratio(fingerprint: Fingerprint) -> float:
    return float(np.median([case.crop_ratio for case in fingerprint.cases]))


def _normalization(channels: Sequence[str], fingerprint: Fingerprint) -> tuple[Normalization, ...]:
    nonzero_only = _crop_ratio(fingerprint) < NONZERO_BELOW
    return tuple(
        _normalize_channel(name, statistics, nonzero_only)
        for name, statistics in zip(channels, fingerprint.intensity, strict=True)
    )


def _normalize_channel(name: str, statistics: IntensityStatistics, nonzero_only: bool) -> Normalization:
    scheme = SCHEMES.get(name.casefold(), "zscore")
    if scheme != "ct":
        return Normalization(scheme=scheme, nonzero_only=nonzero_only and scheme == "zscore")
    return Normalization(
        scheme="ct",
        clip_low=statistics.percentile_00_5,
        clip_high=statistics.percentile_99_5,
        mean=statistics.mean,
        std=max(statistics.std, 1e-8),
    )


def _trained_on(fingerprint: Fingerprint, working: AxisOrder) -> TrainedOn:
    spacings = [permute(case.spacing, working) for case in fingerprint.cases]
    sizes = [_extent(permute(case.spacing, working), case.shape, working) for case in fingerprint.cases]
    means = zip(*(case.channel_means for case in fingerprint.cases), strict=True)
    return TrainedOn(
        spacing=_ranges(spacings), size=_ranges(sizes), intensity=tuple(_range(channel) for channel in means)
    )


def _extent(spacing: Triple, shape: Sequence[int], working: AxisOrder) -> Triple:
    z, y, x = (s * shape[axis] for s, axis in zip(spacing, working, strict=True))
    return (z, y, x)


def _ranges(triples: Sequence[Triple]) -> tuple[Range, Range, Range]:
    z, y, x = (_range(axis) for axis in zip(*triples, strict=True))
    return (z, y, x)


def _range(values: Sequence[float]) -> Range:
    return Range(low=min(values), high=max(values))
