"""The plan of a model that NVIDIA's recipe trained: from its weights, its task, and what the user says.

The recipe keeps its settings in a file beside the prepared data, not in the checkpoint. So patch, spacing and
normalisation come from the task, whose settings are fixed, or from options; each leaves in the plan where it is from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from decathlete.core.choices import Modality
from decathlete.core.labels import LabelSet
from decathlete.core.regions import derived_order, parse_regions
from decathlete.core.registry import ComponentSettings
from decathlete.dataset.regions import with_regions
from decathlete.errors import ModelError, problems_found
from decathlete.interop.recipe_args import DEPTH, MIN_FMAP, recipe_topology
from decathlete.interop.recipe_sources import Sources
from decathlete.planning.explain import times
from decathlete.planning.network_spec import Axes
from decathlete.planning.plan import Plan, Range, TrainingRanges
from decathlete.planning.presets import CtStatistics, TaskSetting, load_preset
from decathlete.preprocessing.normalizations.ct import CtSettings
from decathlete.preprocessing.normalizations.zscore import ZScoreSettings

BRATS_REGIONS = {"whole tumour": (1, 2, 3), "core": (1, 3), "enhancing": (3,)}
"""The label values that the recipe's BraTS loss compares each output with, whatever the task."""
_T = TypeVar("_T")
_UNKNOWN = Range(low=float("-inf"), high=float("inf"))


@dataclass(frozen=True, kw_only=True)
class ImportedPlan:
    """A plan, and what its user should know beside its reasons."""

    plan: Plan
    notes: tuple[str, ...]


def recipe_plan(sources: Sources) -> ImportedPlan:
    """Put the plan together.

    Raises:
        ModelError: settings that are not known or that do not fit the weights, all together.
        OptionError: regions that do not fit the labels.
    """
    made = _Settings(sources)
    patch, spacing = made.patch(), made.spacing()
    channels, labels = made.channels(), made.labels()
    normalization = made.normalization(channels)
    made.check(patch, channels, labels)
    if made.problems:
        raise problems_found(
            made.problems,
            where=sources.checkpoint,
            remedy="give the task that it was trained on (--task), or what is missing by its own option",
            kind=ModelError,
        )
    network = sources.network
    foreground = network.in_channels > len(channels)
    if foreground:
        made.reasons["foreground_channel"] = (
            f"the network takes {network.in_channels} channels, one more than there are: the recipe's --ohe"
        )
    plan = Plan(
        dataset=sources.dataset.name if sources.dataset else made.name(),
        dims=network.dims,
        channels=channels,
        labels=labels,
        orientation="stored",
        preprocessing_order="recipe",
        target_spacing=_target(spacing),
        median_shape=(patch[0] if network.dims == 3 else 1, patch[-2], patch[-1]),
        patch_size=patch,
        batch_size=sources.args.batch_size or made.batch_size(),
        normalization=normalization,
        foreground_channel=foreground,
        foreground_rule="positive" if foreground else "object",
        network=network,
        training_ranges=TrainingRanges(
            spacing=(_UNKNOWN,) * 3, size=(_UNKNOWN,) * 3, intensity=(_UNKNOWN,) * len(channels)
        ),
        fingerprint_digest="",
        reasons=_FIXED_REASONS | made.reasons,
    )
    return ImportedPlan(plan=plan, notes=tuple(made.notes))


_FIXED_REASONS = {
    "orientation": "the recipe uses arrays as the files store them",
    "axis_order": "the recipe's: z, y, x",
    "preprocessing_order": "the recipe's: crop, resample, normalise; pad when patches are read",
    "network.strides": "read off the weights, like everything else about the network but its activation",
    "mirror_axes": "the recipe mirrors along every axis",
    "training_ranges": "unknown: the checkpoint does not contain them, so predictions cannot warn of images outside; "
    "the patch size replaces the size of the median image",
}


class _Settings:
    """Finds each setting, notes where it is from, and collects what is missing or contradicts the weights."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.reasons: dict[str, str] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []

    def name(self) -> str:
        """Of the dataset, if no manifest has one."""
        return self.sources.task.folder if self.sources.task else self.sources.checkpoint.stem

    def batch_size(self) -> int:
        """The recipe's default."""
        preset = load_preset("recipe")
        return preset.batch_size_3d if self.sources.network.dims == 3 else preset.batch_size_2d

    def patch(self) -> Axes:
        """Voxels; zeros if not known."""
        dims, task = self.sources.network.dims, self.sources.task
        found = self._first(
            "patch_size", "--patch-size", self.sources.options.patch_size, task.patch(dims) if task else None
        )
        if found is None:
            self.problems.append(f"the patch of a {dims}D model is not known: give --patch-size or --task")
        elif len(found) != dims:
            self.problems.append(f"the patch has {len(found)} numbers, the network {dims} axes")
            found = None
        return found or (0,) * dims

    def spacing(self) -> tuple[float, ...] | None:
        """Mm, or ``None`` where slices are not resampled; ones if not known."""
        dims, options, task = self.sources.network.dims, self.sources.options, self.sources.task
        if options.spacing is None and dims == 2:
            self.reasons["target_spacing"] = "slices are used as they are: the recipe does not resample them"
            return None
        found = self._first("target_spacing", "--spacing", options.spacing, task.spacing[-dims:] if task else None)
        if found is None:
            self.problems.append("the spacing is not known: give --spacing or --task")
        elif len(found) != dims:
            self.problems.append(f"the spacing has {len(found)} numbers, the network {dims} axes")
            found = None
        return found or (1.0,) * dims

    def channels(self) -> tuple[str, ...]:
        """Names; empty if not known."""
        sources = self.sources
        declared = sources.dataset.channels if sources.dataset else sources.task and sources.task.channels
        found = sources.options.channels or declared
        if not found:
            self.problems.append("the names of the channels are not known: give --channels, --dataset or --task")
        return tuple(found or ())

    def labels(self) -> LabelSet:
        """Classes, and regions where the outputs are such."""
        sources, options = self.sources, self.sources.options
        named = options.labels or (sources.task.labels if sources.task and not sources.dataset else ())
        if options.labels or not sources.dataset:
            labels = LabelSet.from_names(list(named))
        else:
            labels = sources.dataset.labels.revised(regions=(), region_order=())
        if len(labels.classes) == 1:
            self.problems.append("the names of the labels are not known: give --labels, --dataset or --task")
            return labels
        source = "given by --labels" if options.labels else "declared by dataset.json" if sources.dataset else None
        listed = ", ".join(f"{c.value} {c.name}" for c in labels.classes)
        self.reasons["labels"] = f"{listed}; {source or sources.from_task}"
        return self._with_regions(labels)

    def _with_regions(self, labels: LabelSet) -> LabelSet:
        options, args, task = self.sources.options, self.sources.args, self.sources.task
        if options.regions is not None:
            regions = parse_regions(options.regions)
            if list(derived_order(regions)[0]) != list(regions):
                self.problems.append("--regions: outer regions come first, and so must the network's outputs")
            said = "given by --regions"
        elif options.brats or (options.brats is None and args.brats):
            regions = BRATS_REGIONS
            said = "the recipe's BraTS loss, asked for by " + ("--brats" if options.brats else "the checkpoint")
            if task and task.number == 1:
                self.notes.append(
                    "the recipe's BraTS loss takes labels 1 and 3 for the core, which in Task 01 are oedema and "
                    "enhancing tumour: the model's second region is that, not the tumour's core"
                )
        else:
            return labels
        values = "; ".join(f"{name} {', '.join(map(str, members))}" for name, members in regions.items())
        self.reasons["labels"] += f". Outputs are regions: {values} ({said})"
        return with_regions(labels, regions)

    def normalization(self, channels: Sequence[str]) -> tuple[ComponentSettings, ...]:
        """One for all channels, as the recipe does: by the first one's modality."""
        options, task = self.sources.options, self.sources.task
        modality = self._modality(channels)
        if modality == "MRI":
            self.reasons["normalization"] += ": z-score over non-zero voxels, as the recipe does"
            return (ZScoreSettings(nonzero_only=True),) * len(channels)
        given = _ct_statistics(options.ct_stats)
        found = given or (task.ct if task else None)
        if found is None:
            self.problems.append("the CT statistics are not known: give --ct-stats LOW,HIGH,MEAN,STD or --task")
            return ()
        source = "given by --ct-stats" if given else self.sources.from_task
        self.reasons["normalization"] += f"; statistics: {source}"
        return (CtSettings(**found.model_dump()),) * len(channels)

    def _modality(self, channels: Sequence[str]) -> Modality:
        options = self.sources.options
        if options.modality or options.ct_stats:
            self.reasons["normalization"] = "--modality" if options.modality else "CT, for --ct-stats are given"
            return options.modality or "CT"
        named = channels[0] if channels else "?"
        modality: Modality = "CT" if named.casefold() == "ct" else "MRI"
        self.reasons["normalization"] = f"{modality}, for the first channel is called {named}"
        return modality

    def check(self, patch: Axes, channels: Sequence[str], labels: LabelSet) -> None:
        """Whether all that is known fits the weights."""
        network = self.sources.network
        if channels and network.in_channels - len(channels) not in (0, 1):
            self.problems.append(
                f"the network takes {network.in_channels} channels, but {len(channels)} are named "
                f"({', '.join(channels)})"
            )
        if len(labels.classes) > 1 and network.out_channels != labels.n_outputs:
            self.problems.append(self._wrong_outputs(labels))
        if min(patch) and any(p % d for p, d in zip(patch, network.divisor, strict=True)):
            self.problems.append(
                f"a patch of {times(patch)} voxels is no multiple of {times(network.divisor)}, the product of the "
                "network's strides"
            )
        elif min(patch) and self.sources.task is not None:
            self._check_topology(self.sources.task, patch)

    def _wrong_outputs(self, labels: LabelSet) -> str:
        outputs = self.sources.network.out_channels
        kind = "regions" if labels.regions else "classes with the background"
        names = ", ".join(r.name for r in labels.regions) or ", ".join(c.name for c in labels.classes)
        hint = "; if they are BraTS regions, give --brats" if outputs == 3 and not labels.regions else ""
        return f"the network has {outputs} outputs, but there are {labels.n_outputs} {kind} ({names}){hint}"

    def _check_topology(self, task: TaskSetting, patch: Axes) -> None:
        """Whether the recipe makes such a network for the task, unless the user says that it was trained otherwise."""
        network, args, options = self.sources.network, self.sources.args, self.sources.options
        if options.patch_size is not None or options.spacing is not None:
            return
        strides, kernels = recipe_topology(
            task.spacing[-network.dims :], patch, depth=args.depth or DEPTH, min_fmap=args.min_fmap or MIN_FMAP
        )
        if (strides, kernels) != (network.strides, network.kernels):
            self.problems.append(
                f"the network has strides {_digits(network.strides)} and kernels {_digits(network.kernels)}; for "
                f"{task.folder} the recipe makes strides {_digits(strides)} and kernels {_digits(kernels)}: it was "
                "trained on another task, or with another patch or spacing (--patch-size, --spacing)"
            )

    def _first(self, field: str, flag: str, given: _T | None, fixed: _T | None) -> _T | None:
        """What the user gives, or else what is fixed for the task; and the reason."""
        self.reasons[field] = f"given by {flag}" if given is not None else self.sources.from_task
        return given if given is not None else fixed


def _ct_statistics(given: tuple[float, ...] | None) -> CtStatistics | None:
    if given is None:
        return None
    low, high, mean, std = given
    return CtStatistics(clip_low=low, clip_high=high, mean=mean, std=std)


def _digits(axes: Sequence[Axes]) -> str:
    return " ".join("".join(map(str, stage)) for stage in axes)


def _target(spacing: Sequence[float] | None) -> tuple[float | None, float | None, float | None]:
    """As the plan has it: slices keep their distance."""
    if spacing is None:
        return (None, None, None)
    return (spacing[0] if len(spacing) == 3 else None, spacing[-2], spacing[-1])
