"""Builds the plan of a model trained by NVIDIA's recipe from its weights, its task and the user's options.

The recipe keeps its settings in a file beside the prepared data, not in the checkpoint. Therefore patch, spacing and
normalisation come from the task, whose settings are fixed, or from options. The plan records the source of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from decathlete.core.choices import Modality
from decathlete.core.labels import LabelSet
from decathlete.core.regions import derive_order, parse_regions
from decathlete.core.registry import ComponentSettings
from decathlete.dataset.regions import with_regions
from decathlete.errors import ModelError, problems_found
from decathlete.interop.recipe_args import DEPTH, MIN_FMAP, make_recipe_topology
from decathlete.interop.recipe_sources import SettingSources
from decathlete.planning.explain import times
from decathlete.planning.network_spec import Axes
from decathlete.planning.plan import Plan, Range, TrainingRanges
from decathlete.planning.presets import CtStatistics, TaskSetting, load_preset
from decathlete.preprocessing.normalizations.ct import CtSettings
from decathlete.preprocessing.normalizations.zscore import ZScoreSettings

BRATS_REGIONS = {"whole tumour": (1, 2, 3), "core": (1, 3), "enhancing": (3,)}
"""Label values of each output in the recipe's BraTS loss, for every task."""
_T = TypeVar("_T")
_UNKNOWN = Range(low=float("-inf"), high=float("inf"))


@dataclass(frozen=True, kw_only=True)
class RecipePlan:
    """Plan of a model of the recipe, and notes for its user."""

    plan: Plan
    notes: tuple[str, ...]


def build_recipe_plan(sources: SettingSources) -> RecipePlan:
    """Build the plan of a model of the recipe.

    Raises:
        ModelError: settings are unknown or contradict the weights; the message lists all of them.
        OptionError: regions do not fit the labels.
    """
    settings = _Settings(sources)
    patch, spacing = settings.patch(), settings.spacing()
    channels, labels = settings.channels(), settings.labels()
    normalization = settings.normalization(channels)
    settings.check(patch, channels, labels)
    if settings.problems:
        raise problems_found(
            settings.problems,
            where=sources.checkpoint,
            remedy="use --task with the task of its training, or the options for these settings",
            kind=ModelError,
        )
    network = sources.network
    foreground = network.in_channels > len(channels)
    if foreground:
        settings.reasons["foreground_channel"] = (
            f"the network has {network.in_channels} input channels, one more than the image: the recipe's --ohe"
        )
    plan = Plan(
        dataset=sources.dataset.name if sources.dataset else settings.name(),
        dims=network.dims,
        channels=channels,
        labels=labels,
        orientation="stored",
        preprocessing_order="recipe",
        target_spacing=_target_spacing(spacing),
        median_shape=(patch[0] if network.dims == 3 else 1, patch[-2], patch[-1]),
        patch_size=patch,
        batch_size=sources.args.batch_size or settings.batch_size(),
        normalization=normalization,
        foreground_channel=foreground,
        foreground_rule="positive" if foreground else "object",
        network=network,
        training_ranges=TrainingRanges(
            spacing=(_UNKNOWN,) * 3, size=(_UNKNOWN,) * 3, intensity=(_UNKNOWN,) * len(channels)
        ),
        fingerprint_digest="",
        reasons=_FIXED_REASONS | settings.reasons,
    )
    return RecipePlan(plan=plan, notes=tuple(settings.notes))


_FIXED_REASONS = {
    "orientation": "the recipe uses arrays as stored in the files",
    "axis_order": "the recipe's: z, y, x",
    "preprocessing_order": "the recipe's: crop, resample, normalise; pad when patches are read",
    "network.strides": "derived from the weights, like the whole network except its activation",
    "mirror_axes": "the recipe mirrors along every axis",
    "training_ranges": "unknown: the checkpoint does not describe its training images, so that a prediction cannot "
    "warn of different images; the median image is assumed to have the size of the patch",
}


class _Settings:
    """Determines each setting, records its source, and collects missing and contradicting settings."""

    def __init__(self, sources: SettingSources) -> None:
        self.sources = sources
        self.reasons: dict[str, str] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []

    def name(self) -> str:
        """Return the name of the dataset if there is no ``dataset.json``."""
        return self.sources.task.folder if self.sources.task else self.sources.checkpoint.stem

    def batch_size(self) -> int:
        """Return the recipe's default batch size."""
        preset = load_preset("recipe")
        return preset.batch_size_3d if self.sources.network.dims == 3 else preset.batch_size_2d

    def patch(self) -> Axes:
        """Return the patch size, voxels; zeros if unknown."""
        dims, task = self.sources.network.dims, self.sources.task
        patch = self._first(
            "patch_size", "--patch-size", self.sources.options.patch_size, task.patch(dims) if task else None
        )
        if patch is None:
            self.problems.append(f"the patch size of a {dims}D model is unknown: use --patch-size or --task")
        elif len(patch) != dims:
            self.problems.append(f"the patch size has {len(patch)} numbers, the network {dims} axes")
            patch = None
        return patch or (0,) * dims

    def spacing(self) -> tuple[float, ...] | None:
        """Return the target spacing, mm; ``None`` if slices are not resampled; ones if unknown."""
        dims, options, task = self.sources.network.dims, self.sources.options, self.sources.task
        if options.spacing is None and dims == 2:
            self.reasons["target_spacing"] = "slices are not resampled by the recipe"
            return None
        spacing = self._first("target_spacing", "--spacing", options.spacing, task.spacing[-dims:] if task else None)
        if spacing is None:
            self.problems.append("the spacing is unknown: use --spacing or --task")
        elif len(spacing) != dims:
            self.problems.append(f"the spacing has {len(spacing)} numbers, the network {dims} axes")
            spacing = None
        return spacing or (1.0,) * dims

    def channels(self) -> tuple[str, ...]:
        """Return the names of the channels; empty if unknown."""
        sources = self.sources
        declared = sources.dataset.channels if sources.dataset else sources.task and sources.task.channels
        channels = sources.options.channels or declared
        if not channels:
            self.problems.append("the names of the channels are unknown: use --channels, --dataset or --task")
        return tuple(channels or ())

    def labels(self) -> LabelSet:
        """Return the classes, and the regions if the outputs are regions."""
        sources, options = self.sources, self.sources.options
        names = options.labels or (sources.task.labels if sources.task and not sources.dataset else ())
        if options.labels or not sources.dataset:
            labels = LabelSet.from_names(list(names))
        else:
            labels = sources.dataset.labels.revised(regions=(), region_order=())
        if len(labels.classes) == 1:
            self.problems.append("the names of the labels are unknown: use --labels, --dataset or --task")
            return labels
        source = "set by --labels" if options.labels else "declared by dataset.json" if sources.dataset else None
        listed = ", ".join(f"{c.value} {c.name}" for c in labels.classes)
        self.reasons["labels"] = f"{listed}; {source or sources.from_task}"
        return self._with_regions(labels)

    def _with_regions(self, labels: LabelSet) -> LabelSet:
        options, args, task = self.sources.options, self.sources.args, self.sources.task
        if options.regions is not None:
            regions = parse_regions(options.regions)
            if list(derive_order(regions)[0]) != list(regions):
                self.problems.append(
                    "--regions: list the regions in the order of the network's outputs; outer regions come first"
                )
            source = "set by --regions"
        elif options.brats or (options.brats is None and args.brats):
            regions = BRATS_REGIONS
            source = "the recipe's BraTS loss, set by " + ("--brats" if options.brats else "the checkpoint")
            if task and task.number == 1:
                self.notes.append(
                    "the recipe's BraTS loss defines the core as labels 1 and 3, which in Task 01 are oedema and "
                    "enhancing tumour: the model's second region is these two, not the tumour core"
                )
        else:
            return labels
        values = "; ".join(f"{name} {', '.join(map(str, members))}" for name, members in regions.items())
        self.reasons["labels"] += f". Outputs are regions: {values} ({source})"
        return with_regions(labels, regions)

    def normalization(self, channels: Sequence[str]) -> tuple[ComponentSettings, ...]:
        """Return the normalisation. As in the recipe, the first channel determines it for all channels."""
        options, task = self.sources.options, self.sources.task
        modality = self._modality(channels)
        if modality == "MRI":
            self.reasons["normalization"] += ": z-score over non-zero voxels, as the recipe does"
            return (ZScoreSettings(nonzero_only=True),) * len(channels)
        option = _ct_statistics(options.ct_stats)
        statistics = option or (task.ct if task else None)
        if statistics is None:
            self.problems.append("the CT statistics are unknown: use --ct-stats LOW,HIGH,MEAN,STD or --task")
            return ()
        source = "set by --ct-stats" if option else self.sources.from_task
        self.reasons["normalization"] += f"; statistics: {source}"
        return (CtSettings(**statistics.model_dump()),) * len(channels)

    def _modality(self, channels: Sequence[str]) -> Modality:
        options = self.sources.options
        if options.modality or options.ct_stats:
            self.reasons["normalization"] = "--modality" if options.modality else "CT, because --ct-stats is set"
            return options.modality or "CT"
        first = channels[0] if channels else "?"
        modality: Modality = "CT" if first.strip().casefold() == "ct" else "MRI"
        self.reasons["normalization"] = f"{modality}, because the first channel is called {first}"
        return modality

    def check(self, patch: Axes, channels: Sequence[str], labels: LabelSet) -> None:
        """Compare the settings with the weights."""
        network = self.sources.network
        if channels and network.in_channels - len(channels) not in (0, 1):
            self.problems.append(
                f"the network has {network.in_channels} input channels, but {len(channels)} are named "
                f"({', '.join(channels)})"
            )
        if len(labels.classes) > 1 and network.out_channels != labels.n_outputs:
            self.problems.append(self._describe_wrong_outputs(labels))
        if min(patch) and any(p % d for p, d in zip(patch, network.divisor, strict=True)):
            self.problems.append(
                f"a patch of {times(patch)} voxels is not a multiple of {times(network.divisor)}, the product of the "
                "network's strides"
            )
        elif min(patch) and self.sources.task is not None:
            self._check_topology(self.sources.task, patch)

    def _describe_wrong_outputs(self, labels: LabelSet) -> str:
        outputs = self.sources.network.out_channels
        names = ", ".join(labels.output_names)
        brats = outputs == 3 and labels.kind == "classes"
        hint = "; if they are BraTS regions, use --brats" if brats else ""
        return f"the network has {outputs} outputs, but there are {labels.n_outputs} {labels.kind} ({names}){hint}"

    def _check_topology(self, task: TaskSetting, patch: Axes) -> None:
        """Compare the network with the one that the recipe makes for the task, unless patch or spacing are options."""
        network, args, options = self.sources.network, self.sources.args, self.sources.options
        if options.patch_size is not None or options.spacing is not None:
            return
        strides, kernels = make_recipe_topology(
            task.spacing[-network.dims :], patch, depth=args.depth or DEPTH, min_fmap=args.min_fmap or MIN_FMAP
        )
        if (strides, kernels) != (network.strides, network.kernels):
            self.problems.append(
                f"the network has strides {_digits(network.strides)} and kernels {_digits(network.kernels)}; for "
                f"{task.folder} the recipe uses strides {_digits(strides)} and kernels {_digits(kernels)}: it was "
                "trained on another task, or with another patch size or spacing (--patch-size, --spacing)"
            )

    def _first(self, field: str, flag: str, option: _T | None, fixed: _T | None) -> _T | None:
        """Return the user's option, or the fixed setting of the task; record the reason."""
        self.reasons[field] = f"set by {flag}" if option is not None else self.sources.from_task
        return option if option is not None else fixed


def _ct_statistics(values: tuple[float, ...] | None) -> CtStatistics | None:
    if values is None:
        return None
    low, high, mean, std = values
    return CtStatistics(clip_low=low, clip_high=high, mean=mean, std=std)


def _digits(axes: Sequence[Axes]) -> str:
    return " ".join("".join(map(str, stage)) for stage in axes)


def _target_spacing(spacing: Sequence[float] | None) -> tuple[float | None, float | None, float | None]:
    """Return the spacing as in a plan: ``None`` for axes that are not resampled."""
    if spacing is None:
        return (None, None, None)
    return (spacing[0] if len(spacing) == 3 else None, spacing[-2], spacing[-1])
