"""From the fingerprint to the plan, by nnU-Net v2's published rules, with the reason for each choice in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from decathlete.core.geometry import Triple
from decathlete.core.labels import LabelSet
from decathlete.dataset.regions import resolve_labels
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import PlanError
from decathlete.planning import explain as say
from decathlete.planning.fingerprint import Fingerprint, IntensityStatistics
from decathlete.planning.grid import AxisOrder, WorkingGrid, is_flat, permute, working_grid
from decathlete.planning.memory import batch_that_fits, cap_batch, memory_fraction
from decathlete.planning.network_options import pooling_of, shaped, why_by_hand
from decathlete.planning.network_spec import Dims, NetworkSpec
from decathlete.planning.options import PlanOptions
from decathlete.planning.plan import Normalization, Plan, Range, Resampling, TrainingRanges
from decathlete.planning.topology import Topology, make_network, make_topology, shrink, smallest_poolable

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
    options: PlanOptions = PlanOptions(),
    axes: AxisOrder | None = None,
) -> Plan:
    """Plan one model, by the rules alone: ``options.overrides`` are :func:`~decathlete.planning.overrides.plan_with`'s.

    Args:
        axes: the working order of the axes, instead of the coarsest first.

    Raises:
        OptionError: regions that do not fit the labels, or that their names do not decide.
        PlanError: a 3D plan for single slices; a memory target nothing fits into; a fingerprint of another
            orientation or of other channels.
    """
    _check(spec, fingerprint, dims=dims, options=options)
    spec = replace(spec, labels=_labels(spec, options))
    grid = working_grid(fingerprint, axes)
    sized = _size(grid, spec, dims=dims, options=options, n_cases=len(fingerprint.cases))
    normalization = _normalization(spec.channels, fingerprint)
    return Plan(
        dataset=spec.name,
        dims=dims,
        channels=spec.channels,
        labels=spec.labels,
        orientation=fingerprint.orientation,
        axis_order=grid.order,
        order=options.order,
        target_spacing=grid.target_spacing(dims),
        median_shape=grid.median_shape(dims),
        patch_size=sized.topology.patch_size,
        batch_size=sized.batch_size,
        normalization=normalization,
        foreground_channel=options.foreground_channel,
        network=sized.network,
        trained_on=_trained_on(fingerprint, grid.order),
        fingerprint_digest=fingerprint.digest(),
        reasons={
            "orientation": say.why_orientation(fingerprint.orientation),
            "axis_order": say.why_axis_order(grid.order, grid.spacing, chosen=axes is not None),
            "order": say.why_order(options.order),
            "target_spacing": say.why_spacing(dims, coarse=grid.coarse),
            "normalization": say.why_normalization(normalization, spec.channels, _crop_ratio(fingerprint)),
            "resampling": say.why_resampling(Resampling()),
            "mirror_axes": say.why_mirroring(),
            **say.why_foreground_channel(options.foreground_channel),
            **say.why_regions(spec.labels, brats=options.brats, given=options.regions is not None),
            **_why_sized(sized, grid.median[-dims:], options.memory_gb),
            **why_by_hand(options),
        },
    )


def _check(spec: DatasetSpec, fingerprint: Fingerprint, *, dims: Dims, options: PlanOptions) -> None:
    if len(fingerprint.intensity) != len(spec.channels) or not fingerprint.cases:
        raise PlanError(
            f"the fingerprint is not of the dataset {spec.name}", remedy="run `decathlete preprocess` again"
        )
    if options.orientation != fingerprint.orientation:
        raise PlanError(
            f"the fingerprint was made in {fingerprint.orientation} orientation, the plan asks for "
            f"{options.orientation}",
            remedy="make the fingerprint in the orientation of the plan",
        )
    if dims == 3 and is_flat(fingerprint):
        raise PlanError("a 3D model needs volumes, these images are single slices", remedy="plan with --dim 2")


def _labels(spec: DatasetSpec, options: PlanOptions) -> LabelSet:
    """The dataset's, with the regions that are to be learned."""
    return resolve_labels(spec.labels, regions=options.regions, order=options.regions_order, brats=options.brats)


def _size(grid: WorkingGrid, spec: DatasetSpec, *, dims: Dims, options: PlanOptions, n_cases: int) -> _Sized:
    """The largest patch that fits, shrunk from the median image, and the batch for it."""
    spacing, median, memory_gb = grid.spacing[-dims:], grid.median[-dims:], options.memory_gb

    def network_of(topology: Topology) -> NetworkSpec:
        made = make_network(
            topology,
            in_channels=len(spec.channels) + options.foreground_channel,
            out_channels=spec.labels.n_outputs,
            block=options.block,
            norm=options.norm,
        )
        return shaped(made, options)

    pooling = pooling_of(options)
    first = smallest_poolable(spacing, _initial_patch(spacing, median), pooling=pooling)
    topology = make_topology(spacing, first, pooling=pooling)
    network, shrunk = network_of(topology), False
    while memory_fraction(network, topology.patch_size, memory_gb=memory_gb) > 1:
        smaller = shrink(spacing, topology, median, pooling=pooling)
        if smaller is None:
            raise PlanError(
                f"not even a patch of {'×'.join(map(str, topology.patch_size))} voxels fits into {memory_gb:g} GB",
                remedy="raise --memory",
                code="E-PLAN-MEMORY",
            )
        topology, network, shrunk = smaller, network_of(smaller), True
    fits = batch_that_fits(network, topology.patch_size, memory_gb=memory_gb)
    dataset_voxels = float(np.prod(grid.median)) * n_cases
    batch = cap_batch(fits, dataset_voxels=dataset_voxels, patch_size=topology.patch_size)
    return _Sized(topology=topology, network=network, batch_size=batch, batch_that_fits=fits, shrunk=shrunk)


def _why_sized(sized: _Sized, median: Sequence[float], memory_gb: float) -> dict[str, str]:
    return {
        "patch_size": say.why_patch(median, sized.topology, shrunk=sized.shrunk, memory_gb=memory_gb),
        "batch_size": say.why_batch(sized.batch_size, sized.batch_that_fits, memory_gb=memory_gb),
        **say.why_network(sized.network, sized.topology.patch_size),
    }


def _initial_patch(spacing: Sequence[float], median: Sequence[float]) -> list[float]:
    """As long along every axis in mm, of a fixed volume in voxels, nowhere longer than the median image."""
    n = len(spacing)
    density = np.array([1 / s for s in spacing])
    scale = (INITIAL_EDGE[n] ** n / np.prod(density)) ** (1 / n)
    return [min(round(edge), limit) for edge, limit in zip((density * scale).tolist(), median, strict=True)]


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


def _trained_on(fingerprint: Fingerprint, working: AxisOrder) -> TrainingRanges:
    spacings = [permute(case.spacing, working) for case in fingerprint.cases]
    sizes = [_extent(permute(case.spacing, working), case.shape, working) for case in fingerprint.cases]
    means = zip(*(case.channel_means for case in fingerprint.cases), strict=True)
    return TrainingRanges(
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
