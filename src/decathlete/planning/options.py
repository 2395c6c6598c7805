"""The user's options for the plan and the split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from decathlete.core.choices import Block, NetworkName, Norm, Order, Orientation, PresetName
from decathlete.core.regions import GivenRegions, parse_regions
from decathlete.dataset.split_options import N_FOLDS, SEED, SplitOptions
from decathlete.errors import OptionError, problems_found
from decathlete.planning.network_presets import DEFAULT_ARCHITECTURE

CHOICES: dict[str, Any] = {"orientation": Orientation, "preprocessing_order": Order, "block": Block, "norm": Norm}

AUTO = "auto"
"""Value of ``mirror_pairs`` that finds the pairs by the names of the classes."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Options for planning and splitting a dataset.

    Attributes:
        memory_gb: GPU memory that training may use, GB; patch and batch are sized for it. ``None``: that of
            ``network``, or else 8.
        orientation: axes of the images: RAS (``canonical``), or as the files store them (``stored``).
        preprocessing_order: ``nnunet`` normalises, then resamples; ``recipe`` resamples, then normalises.
        network: architecture, blocks and memory by one name, instead of ``architecture`` and ``block``.
        architecture: registered name of the network's architecture, or ``module:Class``.
        block: blocks of the encoder.
        norm: normalisation layers.
        filters: channels of each stage, finest first; there are no more stages than entries.
        wide_encoder: use 64, 96, 128, 192, ... channels instead of 32, 64, 128, ...
        depth: largest number of poolings; ``None``: no limit.
        min_fmap: shortest feature map along a pooled axis, voxels.
        negative_slope: slope of the leaky ReLU below 0.
        deep_supervision: compare coarser outputs with the truth, too.
        heads: largest number of outputs that are compared with the truth; ``None``: all except the coarsest.
        preset: preset that sets the batch size, and patch, spacing and CT statistics of the tasks that it knows. Its
            other defaults come with :func:`~decathlete.planning.overrides.preset_options`.
        regions: overlapping regions to learn, name -> label values, instead of those of the manifest: a mapping, or
            ``"whole tumour=1,2,3;core=2,3"``.
        regions_order: the value that each region is written with, outer regions first; derived if not given.
        brats: learn whole tumour, core and enhancing tumour, derived from the names of the labels.
        mirror_pairs: classes that change sides when a patch is mirrored: ``auto`` (found by their names), ``none``, or
            ``"left kidney=right kidney;left lung=right lung"``.
        foreground_channel: add an input channel that marks the non-zero voxels.
        overrides: ``field=value`` assignments to fields of the plan, applied last.
        n_folds: number of folds of the split, at least 2.
        split_seed: seed of the split.
        splits: file with a list of folds, as nnU-Net's ``splits_final.json``, instead of a random split.
        group_by: regular expression with one group that matches a case's patient; the split keeps patients together.
        annotated: CSV file with the annotated classes of each case in which not all were annotated, instead of the
            manifest's ``annotated``.

    Raises:
        OptionError: with every problem together.
    """

    memory_gb: float | None = None
    orientation: Orientation = "canonical"
    preprocessing_order: Order = "nnunet"
    network: NetworkName | None = None
    architecture: str = DEFAULT_ARCHITECTURE
    block: Block = "plain"
    norm: Norm = "instance"
    filters: tuple[int, ...] = ()
    wide_encoder: bool = False
    depth: int | None = None
    min_fmap: int = 4
    negative_slope: float = 0.01
    deep_supervision: bool = True
    heads: int | None = None
    preset: PresetName | None = None
    regions: GivenRegions | None = None
    regions_order: tuple[int, ...] = ()
    brats: bool = False
    mirror_pairs: str = AUTO
    foreground_channel: bool = False
    overrides: tuple[str, ...] = ()
    n_folds: int = N_FOLDS
    split_seed: int = SEED
    splits: Path | None = None
    group_by: str | None = None
    annotated: Path | None = None

    @property
    def split(self) -> SplitOptions:
        """The options of the split."""
        return SplitOptions(n_folds=self.n_folds, seed=self.split_seed, file=self.splits)

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise problems_found(problems, where="plan options", remedy="fix these options", kind=OptionError)

    def _problems(self) -> Iterator[str]:
        for name, choice in CHOICES.items():
            if (value := getattr(self, name)) not in get_args(choice):
                yield f"{name} is {value!r}; choose {' or '.join(get_args(choice))}"
        if self.preset not in (None, *get_args(PresetName)):
            yield f"preset is {self.preset!r}; choose {' or '.join(get_args(PresetName))}"
        if self.memory_gb is not None and not self.memory_gb > 0:
            yield f"memory_gb must be positive, it is {self.memory_gb:g}; use --memory in GB, e.g. 8"
        yield from self._network_problems()
        yield from self.split.problems()
        yield from self._region_problems()
        overrides: object = self.overrides
        if isinstance(overrides, str):  # a sequence of letters
            yield f"overrides must be a tuple of texts; write ({overrides!r},)"

    def _network_problems(self) -> Iterator[str]:
        if self.network not in (None, *get_args(NetworkName)):
            yield f"network is {self.network!r}; choose {' or '.join(get_args(NetworkName))}"
        if self.network is not None and (self.architecture, self.block) != (DEFAULT_ARCHITECTURE, "plain"):
            yield "--network chooses architecture and blocks; leave out --architecture and --block"
        if self.filters and (len(self.filters) < 2 or min(self.filters) < 1):
            yield f"filters must be 2 or more positive numbers, one for each level, not {self.filters}"
        if self.filters and self.wide_encoder:
            yield "filters and wide_encoder both set the channels; use one of them"
        if self.depth is not None and self.depth < 1:
            yield f"depth must be at least 1, it is {self.depth}"
        if self.min_fmap < 1:
            yield f"min_fmap must be at least 1 voxel, it is {self.min_fmap}"
        if not 0 <= self.negative_slope <= 1:
            yield f"negative_slope must be between 0 and 1, it is {self.negative_slope}"
        if self.heads is not None and self.heads < 1:
            yield f"heads must be at least 1, it is {self.heads}"
        if not self.deep_supervision and self.heads not in (None, 1):
            yield f"heads is {self.heads}, but deep_supervision is off; use one of them"

    def _region_problems(self) -> Iterator[str]:
        if self.brats and self.regions is not None:
            yield "--brats and --regions both set the regions; use one of them"
        if self.regions_order and self.regions is None:
            yield "--regions-order needs --regions; use it, too"
        if self.regions is not None:
            try:
                parse_regions(self.regions)
            except OptionError as problem:
                yield f"regions: {problem.problem}; {problem.remedy}"
