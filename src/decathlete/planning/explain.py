"""The plan in words: why each choice is as it is, and all of it on one terminal page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from decathlete.core.choices import Order, Orientation
from decathlete.core.geometry import Triple
from decathlete.core.labels import LabelSet
from decathlete.planning.network_spec import Axes, NetworkSpec
from decathlete.planning.plan import Normalization, Plan, Resampling
from decathlete.planning.topology import BASE_FEATURES, MAX_FEATURES, MIN_EDGE, Topology

WIDTH = 100
BY_HAND = "set by hand"
"""How the reason of a field begins that the user set."""
AXIS_NAMES = ("superior", "anterior", "right")


def explain(plan: Plan) -> str:
    """The plan, a line per choice, its reason below it; for the terminal."""
    lines = [f"Plan of a {plan.dims}D model for {plan.dataset}"]
    for title, value, keys in plan_rows(plan):
        lines.append(f"  {title:<14}{value}")
        for key in keys:
            lines += textwrap.wrap(
                plan.reasons.get(key, ""), WIDTH, initial_indent=" " * 18, subsequent_indent=" " * 18
            )
    return "\n".join(lines)


def plan_rows(plan: Plan) -> list[tuple[str, str, tuple[str, ...]]]:
    """Title, value, and the keys of its reasons, in reading order; reasons without a row of their own last."""
    network = plan.network
    spacing = " × ".join("as it is" if s is None else f"{s:.4g}" for s in plan.target_spacing)
    median = f" (median image {times(plan.median_shape)} voxels)" if plan.fingerprint_digest else ""
    pooled = " ".join("".join(map(str, stride)) for stride in network.strides[1:])
    rows = [
        ("orientation", plan.orientation, ("orientation",)),
        ("axis order", ", ".join(map(str, plan.axis_order)), ("axis_order",)),
        ("spacing", f"{spacing} mm{median}", ("target_spacing",)),
        ("patch", f"{times(plan.patch_size)} voxels", ("patch_size",)),
        ("batch", str(plan.batch_size), ("batch_size",)),
        ("channels", _channels(plan), ("normalization", "foreground_channel")),
        *([("regions", ", ".join(r.name for r in plan.labels.regions), ("labels",))] if plan.labels.regions else []),
        ("steps", plan.order, ("order",)),
        ("resampling", _resampling(plan.resampling), ("resampling",)),
        ("network", f"{network.block}, {network.norm} norm, {network.n_stages} levels, strides {pooled}", ()),
        ("", "", ("network.strides",)),
        ("width", ", ".join(map(str, network.features)), ("network.features",)),
        ("supervision", f"{network.heads} output(s)", ("network.heads",)),
        ("mirroring", _mirroring(plan), ("mirror_axes",)),
    ]
    rows = _joined(rows)
    shown = {key for _, _, keys in rows for key in keys}
    others = [key for key in plan.reasons if key not in shown]
    return [*rows, *((key, "", (key,)) for key in others)]


def _mirroring(plan: Plan) -> str:
    axes = plan.mirrored_axes
    return f"along axes {', '.join(map(str, axes))} of the patch" if axes else "none"


def _joined(rows: list[tuple[str, str, tuple[str, ...]]]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Rows without a title give their reasons to the row before."""
    out: list[tuple[str, str, tuple[str, ...]]] = []
    for title, value, keys in rows:
        if title:
            out.append((title, value, keys))
        else:
            before = out.pop()
            out.append((before[0], before[1], (*before[2], *keys)))
    return out


def _channels(plan: Plan) -> str:
    channels = [f"{name}: {_scheme(n)}" for name, n in zip(plan.channels, plan.normalization, strict=True)]
    return "; ".join([*channels, *([_foreground(plan)] if plan.foreground_channel else [])])


def _foreground(plan: Plan) -> str:
    if plan.foreground_rule == "object":
        return "foreground: 1 in the object, 0 outside"
    return "foreground: 1 where every normalised channel is positive, 0 elsewhere"


def _scheme(n: Normalization) -> str:
    if n.scheme == "ct":
        return f"clip to {n.clip_low:.4g}..{n.clip_high:.4g}, then (x - {n.mean:.4g}) / {n.std:.4g}"
    if n.scheme == "zscore":
        return "z-score of its non-zero voxels" if n.nonzero_only else "z-score"
    return {"rescale": "rescaled to 0..1", "none": "unchanged"}[n.scheme]


def _resampling(resampling: Resampling) -> str:
    return f"order {resampling.image_order}, coarse axis apart: {resampling.separate_axis}"


def times(sizes: Sequence[float]) -> str:
    """``40 × 56 × 40``."""
    return " × ".join(f"{s:g}" for s in sizes)


def why_orientation(orientation: Orientation) -> str:
    """Of the stored array."""
    if orientation == "canonical":
        return "all images are turned to one anatomical orientation (RAS), so that files stored differently mix"
    return "arrays are used as the files store them"


def why_axis_order(working: Sequence[int], target: Triple, *, chosen: bool) -> str:
    """Of the working axes."""
    if chosen:
        return BY_HAND
    if working[0] == 0:
        return f"no axis is coarser than the first ({target[0]:.4g} mm)"
    return f"axis {working[0]} ({target[0]:.4g} mm) is the coarsest and comes first; 2D slices are cut across it"


def why_order(order: Order) -> str:
    """Of the preprocessing steps."""
    if order == "nnunet":
        return "crop, normalise, resample; pad when patches are read"
    return "crop, resample, normalise; pad when patches are read"


def why_spacing(dims: int, *, coarse: bool) -> str:
    """Of the target spacing."""
    if dims == 2:
        return "the median of the dataset in plane; slices keep their own distance"
    if coarse:
        return (
            "the median of the dataset; along the coarse axis (more than 3 times the others, with that many fewer "
            "voxels) the 10th percentile, never finer than the others"
        )
    return "the median of the dataset along each axis"


def why_patch(median: Sequence[float], topology: Topology, *, shrunk: bool, memory_gb: float) -> str:
    """Of the patch size."""
    multiple = f"a multiple of {times(topology.divisor)}, the product of the strides"
    if shrunk:
        return (
            f"the median image ({times(median)}) shrunk, each time where it is longest against the median, until "
            f"training fits into {memory_gb:g} GB; {multiple}"
        )
    return f"the median image ({times(median)}) fits whole into {memory_gb:g} GB; {multiple}"


def why_batch(batch: int, fits: int, *, memory_gb: float) -> str:
    """Of the batch size."""
    if batch == fits:
        return f"as many as fit into {memory_gb:g} GB"
    if batch > fits:
        return "the least that is trained with"
    return f"{fits} would fit into {memory_gb:g} GB, but a batch holds at most 5 % of the dataset's voxels"


def why_normalization(normalization: Sequence[Normalization], channels: Sequence[str], crop_ratio: float) -> str:
    """Of each channel's intensities."""
    words = []
    ct = [name for name, n in zip(channels, normalization, strict=True) if n.scheme == "ct"]
    if ct:
        words.append(f"{', '.join(ct)}: a fixed scale (HU), clipped to the 0.5 and 99.5 percentiles of the foreground")
    if any(n.scheme == "zscore" for n in normalization):
        which = "over its non-zero voxels" if any(n.nonzero_only for n in normalization) else "over all its voxels"
        words.append(
            f"each image by its own mean and deviation {which}, since cropping keeps {crop_ratio:.0%} of the median "
            "image (non-zero voxels only below 75 %)"
        )
    return "; ".join(words) or "as the channels' names ask"


def why_foreground_channel(asked: bool) -> dict[str, str]:
    """Of the mask as a channel of its own; nothing where there is none."""
    if not asked:
        return {}
    return {
        "foreground_channel": (
            "--foreground-channel: the voxels that are not zero, holes filled, are one more channel: normalised "
            "images do not show where the object ends"
        )
    }


def region_lines(labels: LabelSet) -> list[str]:
    """``core: 1 necrosis, 4 enhancing (written as 1)``, for each region."""
    names = {c.value: c.name for c in labels.classes}
    return [
        f"{region.name}: {', '.join(f'{v} {names[v]}' for v in region.values)} (written as {value})"
        for region, value in zip(labels.regions, labels.region_order, strict=True)
    ]


def why_regions(labels: LabelSet, *, brats: bool, given: bool) -> dict[str, str]:
    """Of the regions; nothing where classes exclude each other."""
    if not labels.regions:
        return {}
    origin = "by the names of the labels (--brats)" if brats else "--regions" if given else "dataset.json declares them"
    found = "; ".join(region_lines(labels))
    return {
        "labels": f"{found}. {origin}; learned apart, they may overlap, and are written over each other in this order"
    }


def why_resampling(resampling: Resampling) -> str:
    """Of the resampling."""
    return (
        f"cubic in plane; the coarsest axis by nearest neighbour where spacing differs more than "
        f"{resampling.separate_ratio:g}-fold between axes"
    )


def why_mirroring() -> str:
    """Why training mirrors."""
    return "each axis at random, as nnU-Net does: more shapes from few cases, and test-time augmentation may flip"


def is_by_hand(reasons: Mapping[str, str], field: str) -> bool:
    """Whether the user set ``field`` of the plan."""
    return reasons.get(field, "").startswith(BY_HAND)


def why_network(network: NetworkSpec, patch_size: Axes) -> dict[str, str]:
    """The network's reasons by field."""
    return {
        "network.strides": why_strides(network, patch_size),
        "network.features": why_features(network),
        "network.heads": why_heads(network),
    }


def why_strides(network: NetworkSpec, patch_size: Axes) -> str:
    """Of depth, strides and kernels."""
    edges = [size // divisor for size, divisor in zip(patch_size, network.divisor, strict=True)]
    flat = any(k == 1 for kernel in network.kernels for k in kernel)
    kernels = "; kernels are 1 along an axis until its spacing is within twice the finest" if flat else ""
    return (
        f"axes are halved while their spacing is within twice the finest and maps stay at least {MIN_EDGE} long: the "
        f"coarsest map is {times(edges)}{kernels}"
    )


def why_features(network: NetworkSpec) -> str:
    """Of the width."""
    first, *deeper = network.features
    if deeper and deeper[0] > 2 * first:
        return f"{first} at full resolution, where the time goes; from there {deeper[0]} doubling at each level"
    base = first
    return f"{base} doubling at each level up to {MAX_FEATURES[network.dims] * base // BASE_FEATURES}"


def why_heads(network: NetworkSpec) -> str:
    """Of deep supervision."""
    if network.heads == 1:
        return "too shallow for deep supervision: only the full resolution is trained on"
    return "each decoder output but the coarsest is compared with the truth"
