"""The plan in words: why each choice is as it is, and all of it on one terminal page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from decathlete.core.choices import Configuration, Order, Orientation
from decathlete.core.geometry import Triple, Unit
from decathlete.core.labels import LabelSet
from decathlete.planning.architectures import PlanRow, architecture_of
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.mirror_pairs import MirrorPair
from decathlete.planning.normalizations import NORMALIZATIONS, ChannelStatistics
from decathlete.planning.plan import Plan, Resampling
from decathlete.planning.topology import Topology

WIDTH = 100
AXIS_NAMES = ("superior", "anterior", "right")


def explain(plan: Plan) -> str:
    """Return the plan as text for the terminal: a line for each decision, its reason below it."""
    name = plan.configuration_name
    of = f"a {plan.dims}D model" if name == f"{plan.dims}d" else f"the configuration {name}"
    lines = [f"Plan of {of} for {plan.dataset}"]
    for title, value, keys in plan_rows(plan):
        lines.append(f"  {title:<14}{value}")
        for key in keys:
            lines += textwrap.wrap(
                plan.reasons.get(key, ""), WIDTH, initial_indent=" " * 18, subsequent_indent=" " * 18
            )
    return "\n".join(lines)


def plan_rows(plan: Plan) -> list[PlanRow]:
    """Return title, value and the fields whose reasons belong to it, in reading order; other reasons come last."""
    regions = ", ".join(region.name for region in plan.labels.regions)
    median = f" (median image {times(plan.median_shape)} voxels)" if plan.fingerprint_digest else ""
    rows = [
        ("orientation", plan.orientation, ("orientation",)),
        ("axis order", ", ".join(map(str, plan.axis_order)), ("axis_order",)),
        ("spacing", f"{format_spacing(plan.target_spacing, plan.spacing_unit)}{median}", ("target_spacing",)),
        *([("coarse start", _coarse_start(plan), ("coarse_start", "coarse_start.share"))] if plan.coarse_start else []),
        ("patch", f"{times(plan.patch_size)} voxels", ("patch_size",)),
        ("batch", str(plan.batch_size), ("batch_size",)),
        ("channels", _channels(plan), ("normalization", "foreground_channel", "fill_slice_holes")),
        *([("previous stage", plan.previous_stage, ("previous_stage",))] if plan.previous_stage else []),
        *([("regions", regions, ("labels",))] if regions else []),
        ("steps", plan.preprocessing_order, ("preprocessing_order",)),
        ("resampling", _resampling(plan.resampling), ("resampling",)),
        *architecture_of(plan.network).rows(),
        ("supervision", f"{plan.network.heads} output(s)", ("network.heads",)),
        ("mirroring", _mirroring(plan), ("mirror_axes", "mirror_pairs")),
        ("components", "the largest is kept" if plan.keep_largest else "all are kept", ("keep_largest",)),
    ]
    shown = {key for _, _, keys in rows for key in keys}
    others = [key for key in plan.reasons if key not in shown]
    of_network = {plan.reasons[key]: key for key in others if key.startswith("network.")}  # each text once
    rows = [(t, value, (*keys, *of_network.values()) if t == "network" else keys) for t, value, keys in rows]
    return [*rows, *((key, "", (key,)) for key in others if not key.startswith("network."))]


def _coarse_start(plan: Plan) -> str:
    start = plan.coarse_start
    assert start is not None  # for the type checker: the row is shown only with one
    return f"{format_spacing(start.target_spacing, plan.spacing_unit)} for the first {start.share:.0%} of the training"


def _mirroring(plan: Plan) -> str:
    axes = plan.mirrored_axes
    return f"along axes {', '.join(map(str, axes))} of the patch" if axes else "none"


def _channels(plan: Plan) -> str:
    channels = [
        f"{name}: {NORMALIZATIONS.build(settings).describe()}"
        for name, settings in zip(plan.channels, plan.normalization, strict=True)
    ]
    foreground = [_foreground(plan)] if plan.foreground_channel else []
    holes = [] if plan.fill_slice_holes else ["holes of the object in single slices are not filled"]
    return "; ".join([*channels, *foreground, *holes])


def _foreground(plan: Plan) -> str:
    if plan.foreground_rule == "object":
        return "foreground: 1 in the object, 0 outside"
    return "foreground: 1 where every normalised channel is positive, 0 elsewhere"


def _resampling(resampling: Resampling) -> str:
    return f"order {resampling.image_order}, coarse axis separately: {resampling.separate_axis}"


def times(sizes: Sequence[float]) -> str:
    """Return sizes as ``40 × 56 × 40``."""
    return " × ".join(f"{s:g}" for s in sizes)


def format_spacing(spacing: Sequence[float | None], unit: str = "mm") -> str:
    """Return a target spacing as ``10 × 1.5 × 1.5 mm``."""
    return " × ".join("as it is" if s is None else f"{s:.4g}" for s in spacing) + f" {unit}"


def format_grids(plan: Plan) -> str:
    """Return the spacing of a plan, and that of its coarse start, as ``1 × 1 × 1 mm (at first 2 × 2 × 2 mm)``."""
    final = format_spacing(plan.target_spacing, plan.spacing_unit)
    if plan.coarse_start is None:
        return final
    return f"{final} (at first {format_spacing(plan.coarse_start.target_spacing, plan.spacing_unit)})"


def why_orientation(orientation: Orientation, *, unit: Unit = "mm") -> str:
    """Return the reason for the orientation."""
    if unit == "pixel":
        return "the format of the images has no orientation: arrays are used as the files store them"
    if orientation == "canonical":
        return "all images are turned to one anatomical orientation (RAS), so that files stored differently mix"
    return "arrays are used as the files store them"


def why_axis_order(working: Sequence[int], target: Triple, *, unit: Unit = "mm") -> str:
    """Return the reason for the working order of the axes."""
    if working[0] == 0:
        return f"no axis is coarser than the first ({target[0]:.4g} {unit})"
    return f"axis {working[0]} ({target[0]:.4g} {unit}) is the coarsest and comes first; 2D slices are cut across it"


def why_preprocessing_order(order: Order) -> str:
    """Return what the order of the preprocessing steps means."""
    if order == "nnunet":
        return "crop, normalise, resample; pad when patches are read"
    return "crop, resample, normalise; pad when patches are read"


def why_spacing(dims: int, *, coarse: bool, unit: Unit = "mm") -> str:
    """Return the reason for the target spacing."""
    if unit == "pixel":
        return (
            "the format of the images has no spacing: lengths are in pixels, so that distances and volumes are not in "
            "mm and mL (use --spacing to set it)"
        )
    if dims == 2:
        return "the median of the dataset in plane; slices keep their own distance"
    if coarse:
        return (
            "the median of the dataset; along the coarse axis (more than 3 times the others, with that many fewer "
            "voxels) the 10th percentile, never finer than the others"
        )
    return "the median of the dataset along each axis"


def why_patch(median: Sequence[float], topology: Topology, *, shrunk: bool, memory_gb: float) -> str:
    """Return the reason for the patch size."""
    multiple = f"a multiple of {times(topology.divisor)}, the product of the strides"
    if shrunk:
        return (
            f"the median image ({times(median)}) shrunk, each time where it is longest against the median, until "
            f"training fits into {memory_gb:g} GB; {multiple}"
        )
    return f"the median image ({times(median)}) fits whole into {memory_gb:g} GB; {multiple}"


def why_batch(batch: int, fits: int, *, memory_gb: float, dataset_share: float) -> str:
    """Return the reason for the batch size."""
    if batch == fits:
        return f"as many samples as fit into {memory_gb:g} GB"
    if batch > fits:
        return "the smallest batch that is used for training"
    most = f"a batch holds at most {dataset_share * 100:g} % of the dataset's voxels"
    return f"{fits} would fit into {memory_gb:g} GB, but {most}"


def why_normalization(plan: Plan, fingerprint: Fingerprint) -> str:
    """Return the reasons for each channel's normalisation."""
    channels: dict[str, list[str]] = {}
    for index, (name, settings) in enumerate(zip(plan.channels, plan.normalization, strict=True)):
        reason = NORMALIZATIONS.build(settings).reason(ChannelStatistics.of(fingerprint, index))
        if reason:
            channels.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in channels.items()) or "by the channels' names"


def why_foreground_channel(enabled: bool) -> dict[str, str]:
    """Return the reason for the foreground channel; nothing if there is none."""
    if not enabled:
        return {}
    return {
        "foreground_channel": (
            "--foreground-channel: one more channel marks the non-zero voxels, holes filled: normalised images do not "
            "show where the object ends"
        )
    }


def why_previous_stage(previous_stage: Configuration | None) -> dict[str, str]:
    """Return what the previous stage of a cascade is for; nothing if there is none."""
    if previous_stage is None:
        return {}
    return {
        "previous_stage": (
            f"the prediction of {previous_stage} shows the whole image; each structure is one more input channel"
        )
    }


def region_lines(labels: LabelSet) -> list[str]:
    """Return a line for each region: ``core: 1 necrosis, 4 enhancing (written as 1)``."""
    names = {c.value: c.name for c in labels.classes}
    return [
        f"{region.name}: {', '.join(f'{v} {names[v]}' for v in region.values)} (written as {value})"
        for region, value in zip(labels.regions, labels.region_order, strict=True)
    ]


def why_regions(labels: LabelSet, *, brats: bool, given: bool) -> dict[str, str]:
    """Return the reason for the regions; nothing if there are none."""
    if not (lines := region_lines(labels)):
        return {}
    origin = "by the names of the labels (--brats)" if brats else "--regions" if given else "dataset.json declares them"
    listed = "; ".join(lines)
    return {
        "labels": f"{listed}. {origin}; each has its own output, they may overlap, later ones overwrite earlier ones"
    }


def why_resampling(resampling: Resampling) -> str:
    """Return the reason for the resampling."""
    return (
        f"cubic in plane; the coarsest axis by nearest neighbour where spacing differs more than "
        f"{resampling.separate_ratio:g}-fold between axes"
    )


def why_mirror_pairs(pairs: Sequence[MirrorPair], *, found: bool) -> dict[str, str]:
    """Return the reason for the mirror pairs; empty without pairs."""
    if not pairs:
        return {}
    listed = ", ".join(f"{left} and {right}" for left, right in pairs[:4]) + (", ..." if len(pairs) > 4 else "")
    origin = "found by their names" if found else set_by("--mirror-pairs")
    return {"mirror_pairs": f"{len(pairs)} pair(s) change sides in flips from left to right: {listed}; {origin}"}


def why_keep_largest(*, keep: bool) -> dict[str, str]:
    """Return the reason why predictions keep only the largest component; empty if they keep all."""
    if not keep:
        return {}
    return {
        "keep_largest": "the foreground of the training cases is connected: further components are taken for errors"
    }


def why_mirroring() -> str:
    """Return the reason for mirroring."""
    return "each axis at random, as nnU-Net does: more shapes from few cases, and test-time augmentation may flip"


def set_by(option: str) -> str:
    """Return the reason for a field that the user set with ``option``."""
    return f"set by {option}" if option else "set by the user"
