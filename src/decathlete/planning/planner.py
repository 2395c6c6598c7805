"""Make a plan from a fingerprint by nnU-Net v2's published rules, with the reason for each decision in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from decathlete.core.choices import Configuration
from decathlete.core.geometry import Triple
from decathlete.core.labels import LabelSet
from decathlete.core.registry import ComponentSettings
from decathlete.dataset.regions import resolve_labels
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import OptionError, PlanError
from decathlete.planning import explain
from decathlete.planning.architectures import architecture_of, find_architecture, memory_target_gb, network_options_set
from decathlete.planning.connected import cover_foreground
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.grid import AxisOrder, Spacing, WorkingGrid, is_flat, permute, working_grid
from decathlete.planning.memory import batch_that_fits, cap_batch, memory_fraction
from decathlete.planning.mirror_pairs import (
    MirrorPair,
    find_mirror_pairs,
    parse_mirror_pairs,
    with_swapped_annotations,
)
from decathlete.planning.network_spec import Dims, NetworkSpec
from decathlete.planning.normalizations import ChannelStatistics, normalization_for_channel
from decathlete.planning.options import AUTO, PlanOptions
from decathlete.planning.plan import Plan, Range, Resampling, TrainingRanges
from decathlete.planning.topology import Topology, make_topology, shrink, smallest_poolable

INITIAL_EDGE: dict[int, int] = {2: 2048, 3: 256}
"""Edge of a square or cube, voxels. The first patch has its volume, and the same length along every axis in mm."""


@dataclass(frozen=True, kw_only=True)
class _NetworkSize:
    """A patch, its network and the batch that fits; ``shrunk``: whether the patch is smaller than the first one."""

    topology: Topology
    network: NetworkSpec
    batch_size: int
    batch_that_fits: int
    dataset_share: float
    shrunk: bool


def make_plan(
    spec: DatasetSpec,
    fingerprint: Fingerprint,
    *,
    dims: Dims,
    options: PlanOptions = PlanOptions(),
    axes: AxisOrder | None = None,
    spacing: Spacing = (None, None, None),
    configuration: Configuration | None = None,
) -> Plan:
    """Plan one model by the rules alone, without ``options.overrides``.

    Use :func:`~decathlete.planning.overrides.plan_with` to apply those, too.

    Args:
        axes: the working order of the axes, instead of the coarsest first.
        spacing: target spacing along the working axes, mm; ``None`` along an axis: the dataset's.
        configuration: name of the configuration; a cascade has the prediction of its previous stage as input.

    Raises:
        OptionError: regions or mirror pairs that do not match the labels, or regions that cannot be derived from their
            names; an unknown architecture or options that it does not use.
        PlanError: a 3D plan for single slices; a memory target that no patch fits into; a fingerprint of another
            orientation or with other channels.
    """
    _check(spec, fingerprint, dims=dims, options=options)
    labels, pairs = choose_labels(spec, options)
    spec = replace(spec, labels=with_swapped_annotations(labels, pairs))
    grid = working_grid(fingerprint, axes, spacing)
    previous_stage: Configuration | None = "3d_lowres" if configuration == "3d_cascade" else None
    n_inputs = _n_inputs(spec, options, previous_stage)
    sized = _size(grid, spec, n_inputs=n_inputs, dims=dims, options=options, n_cases=len(fingerprint.cases))
    plan = Plan(
        dataset=spec.name,
        dims=dims,
        configuration=configuration or ("2d" if dims == 2 else "3d"),
        previous_stage=previous_stage,
        channels=spec.channels,
        labels=spec.labels,
        orientation=fingerprint.orientation,
        axis_order=grid.order,
        preprocessing_order=options.preprocessing_order,
        target_spacing=grid.target_spacing(dims),
        spacing_unit=fingerprint.unit,
        median_shape=grid.median_shape(dims),
        patch_size=sized.topology.patch_size,
        batch_size=sized.batch_size,
        normalization=_normalization(spec.channels, fingerprint),
        foreground_channel=options.foreground_channel,
        mirror_pairs=pairs,
        keep_largest=fingerprint.connected and cover_foreground(labels),
        network=sized.network,
        training_ranges=_training_ranges(fingerprint, grid.order),
        fingerprint_digest=fingerprint.digest(),
        user_set=network_options_set(options, find_architecture(options)),
    )
    reasons = _why_decided(plan, fingerprint, grid, options, is_order_set=axes is not None)
    reasons |= _why_sized(sized, grid.median[-dims:], memory_target_gb(options))
    reasons |= {field: explain.set_by(option) for field, option in plan.user_set.items()}
    return plan.revised(reasons=reasons).with_codes(spec.structure_codes)


def _n_inputs(spec: DatasetSpec, options: PlanOptions, previous_stage: Configuration | None) -> int:
    """Return the number of the network's input channels: image, foreground, and structures of the previous stage."""
    n_previous = 0 if previous_stage is None else len(spec.labels.structures)
    return len(spec.channels) + options.foreground_channel + n_previous


def _why_axis_order(grid: WorkingGrid, fingerprint: Fingerprint, *, is_set: bool) -> str:
    if is_set:
        return explain.set_by("")
    return explain.why_axis_order(grid.order, grid.spacing, unit=fingerprint.unit)


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
        raise slices_error(spec.name)


def choose_labels(spec: DatasetSpec, options: PlanOptions) -> tuple[LabelSet, tuple[MirrorPair, ...]]:
    """Return the dataset's labels with the regions to learn, and the pairs that change sides in mirrored patches.

    Raises:
        OptionError: regions or mirror pairs that do not match the labels, or pairs in stored axes.
    """
    labels = resolve_labels(spec.labels, regions=options.regions, order=options.regions_order, brats=options.brats)
    return labels, _mirror_pairs(labels, options)


def slices_error(name: str) -> PlanError:
    """Return the error of a 3D plan for the images of the dataset ``name``, which are single slices."""
    return PlanError(
        f"a 3D model needs volumes, the images of {name} are single slices",
        remedy="use --dim 2, or --configurations auto",
    )


def _mirror_pairs(labels: LabelSet, options: PlanOptions) -> tuple[MirrorPair, ...]:
    if options.mirror_pairs == AUTO:
        return find_mirror_pairs(labels) if options.orientation == "canonical" else ()
    pairs = parse_mirror_pairs(options.mirror_pairs, labels)
    if pairs and options.orientation != "canonical":
        raise OptionError(
            "--mirror-pairs and --orientation stored exclude each other: left and right are unknown in stored axes",
            remedy="use --orientation canonical, or --mirror-pairs none",
            code="E-OPTION-CONFLICT",
        )
    return pairs


def _size(
    grid: WorkingGrid, spec: DatasetSpec, *, n_inputs: int, dims: Dims, options: PlanOptions, n_cases: int
) -> _NetworkSize:
    """Return the largest patch that fits, shrunk from the median image, and the batch for it."""
    network_of = partial(
        find_architecture(options).plan_spec,
        in_channels=n_inputs,
        out_channels=spec.labels.n_outputs,
        options=options,
    )
    first, topology = _first_and_fitting(grid, network_of, dims=dims, options=options)
    network = network_of(topology)
    reference = architecture_of(network).memory_reference_for(options)
    fits = batch_that_fits(network, topology.patch_size, memory_gb=memory_target_gb(options), reference=reference)
    batch = cap_batch(
        fits,
        dataset_voxels=float(np.prod(grid.median)) * n_cases,
        patch_size=topology.patch_size,
        dataset_share=reference.dataset_share,
    )
    return _NetworkSize(
        topology=topology,
        network=network,
        batch_size=batch,
        batch_that_fits=fits,
        dataset_share=reference.dataset_share,
        shrunk=topology != first,
    )


def _first_and_fitting(
    grid: WorkingGrid, network_of: Callable[[Topology], NetworkSpec], *, dims: Dims, options: PlanOptions
) -> tuple[Topology, Topology]:
    """Return the topology of the first patch, and the first one of ever smaller patches that fits into memory.

    Raises:
        PlanError: no patch fits.
    """
    spacing, median, memory_gb = grid.spacing[-dims:], grid.median[-dims:], memory_target_gb(options)
    pooling = find_architecture(options).pooling(options)
    patch = smallest_poolable(spacing, _initial_patch(spacing, median), pooling=pooling)
    first = topology = make_topology(spacing, patch, pooling=pooling)
    network = network_of(topology)
    reference = architecture_of(network).memory_reference_for(options)
    while memory_fraction(network, topology.patch_size, memory_gb=memory_gb, reference=reference) > 1:
        smaller = shrink(spacing, topology, median, pooling=pooling)
        if smaller is None:
            smallest = "×".join(map(str, topology.patch_size))
            raise PlanError(
                f"the smallest patch, {smallest} voxels, needs more than {memory_gb:g} GB",
                remedy="raise --memory",
                code="E-PLAN-MEMORY",
            )
        topology, network = smaller, network_of(smaller)
    return first, topology


def _why_decided(
    plan: Plan, fingerprint: Fingerprint, grid: WorkingGrid, options: PlanOptions, *, is_order_set: bool
) -> dict[str, str]:
    """Return the reasons for the decisions of preprocessing and labels, by field."""
    return {
        "orientation": explain.why_orientation(fingerprint.orientation, unit=fingerprint.unit),
        "axis_order": _why_axis_order(grid, fingerprint, is_set=is_order_set),
        "preprocessing_order": explain.why_preprocessing_order(options.preprocessing_order),
        "target_spacing": explain.why_spacing(plan.dims, coarse=grid.coarse, unit=fingerprint.unit),
        "normalization": explain.why_normalization(plan, fingerprint),
        "resampling": explain.why_resampling(Resampling()),
        "mirror_axes": explain.why_mirroring(),
        **explain.why_mirror_pairs(plan.mirror_pairs, found=options.mirror_pairs == AUTO),
        **explain.why_foreground_channel(options.foreground_channel),
        **explain.why_previous_stage(plan.previous_stage),
        **explain.why_keep_largest(keep=plan.keep_largest),
        **explain.why_regions(plan.labels, brats=options.brats, given=options.regions is not None),
    }


def _why_sized(sized: _NetworkSize, median: Sequence[float], memory_gb: float) -> dict[str, str]:
    return {
        "patch_size": explain.why_patch(median, sized.topology, shrunk=sized.shrunk, memory_gb=memory_gb),
        "batch_size": explain.why_batch(
            sized.batch_size, sized.batch_that_fits, memory_gb=memory_gb, dataset_share=sized.dataset_share
        ),
        **architecture_of(sized.network).reasons(sized.topology.patch_size),
    }


def _initial_patch(spacing: Sequence[float], median: Sequence[float]) -> list[float]:
    """Return a patch of a fixed volume and the same length along every axis in mm, within the median image, voxels."""
    n = len(spacing)
    density = np.array([1 / s for s in spacing])
    scale = (INITIAL_EDGE[n] ** n / np.prod(density)) ** (1 / n)
    return [min(round(edge), limit) for edge, limit in zip((density * scale).tolist(), median, strict=True)]


def _normalization(channels: Sequence[str], fingerprint: Fingerprint) -> tuple[ComponentSettings, ...]:
    return tuple(
        normalization_for_channel(name, ChannelStatistics.of(fingerprint, index)) for index, name in enumerate(channels)
    )


def _training_ranges(fingerprint: Fingerprint, working: AxisOrder) -> TrainingRanges:
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
