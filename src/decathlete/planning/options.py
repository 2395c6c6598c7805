"""What a user says about the plan, on its way from the command line to the planner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from decathlete.core.choices import Block, Norm, Order, Orientation, PresetName
from decathlete.core.regions import GivenRegions, parse_regions
from decathlete.errors import OptionError, problems_found

CHOICES: dict[str, Any] = {"orientation": Orientation, "order": Order, "block": Block, "norm": Norm}


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """How to plan and split a dataset.

    Attributes:
        memory_gb: GPU memory that training may fill, GB; patch and batch are sized for it.
        orientation: work in RAS order (``canonical``), or as the files store their arrays.
        order: of preprocessing's steps: ``nnunet`` normalises, then resamples; ``recipe`` the other way round.
        block: of the encoder.
        norm: normalisation layers.
        filters: channels of each stage, finest first; the network pools no further than there are entries.
        wide_encoder: 64, 96, 128, 192, ... channels in place of 32, 64, 128, ...
        depth: poolings at most: levels below full resolution.
        min_fmap: feature maps get no shorter than this along a pooled axis, voxels.
        negative_slope: of the leaky ReLU.
        deep_supervision: train on coarser outputs, too.
        heads: outputs trained on, full resolution's included, at most; ``None``: all but the coarsest.
        preset: fixes batch, and patch, spacing and CT statistics of the tasks that it knows; a preset's other defaults
            come with :func:`~decathlete.planning.overrides.preset_options`.
        regions: overlapping regions to learn, name -> label values, in place of those that the manifest declares:
            a mapping, or ``"whole tumour=1,2,3;core=2,3"``.
        regions_order: the value that each region is written with, outer ones first; derived if not given.
        brats: learn whole tumour, core and enhancing, which the names of the labels decide.
        foreground_channel: show the network one more channel: where the image is not zero.
        overrides: ``field=value`` assignments onto the plan, which have the last word.
        n_folds: of the split, 2 or more.
        split_seed: of the split.
        group_by: regular expression with one group that names a case's patient; the split keeps patients together.

    Raises:
        OptionError: with every problem together.
    """

    memory_gb: float = 8.0
    orientation: Orientation = "canonical"
    order: Order = "nnunet"
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
    foreground_channel: bool = False
    overrides: tuple[str, ...] = ()
    n_folds: int = 5
    split_seed: int = 12345
    group_by: str | None = None

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise problems_found(problems, where="plan options", remedy="fix these options", kind=OptionError)

    def _problems(self) -> Iterator[str]:
        for name, choice in CHOICES.items():
            if (value := getattr(self, name)) not in get_args(choice):
                yield f"{name} is {value!r}; choose {' or '.join(get_args(choice))}"
        if self.preset not in (None, *get_args(PresetName)):
            yield f"preset is {self.preset!r}; choose {' or '.join(get_args(PresetName))}"
        if not self.memory_gb > 0:
            yield f"a memory of {self.memory_gb:g} GB holds nothing; give --memory in GB, e.g. 8"
        yield from self._network_problems()
        if self.n_folds < 2:
            yield f"--n-folds must be at least 2, it is {self.n_folds}"
        yield from self._region_problems()
        overrides: object = self.overrides
        if isinstance(overrides, str):  # which is a sequence, too: of letters
            yield f"overrides is a text; write ({overrides!r},)"

    def _network_problems(self) -> Iterator[str]:
        if self.filters and (len(self.filters) < 2 or min(self.filters) < 1):
            yield f"filters {self.filters} do not make a U-Net; give 2 or more positive numbers, one per level"
        if self.filters and self.wide_encoder:
            yield "filters and wide_encoder contradict each other; give one of them"
        if self.depth is not None and self.depth < 1:
            yield f"a depth of {self.depth} is no U-Net; take 1 or more"
        if self.min_fmap < 1:
            yield f"min_fmap is {self.min_fmap}; take 1 or more voxels"
        if not 0 <= self.negative_slope <= 1:
            yield f"negative_slope is {self.negative_slope}; take 0 to 1"
        if self.heads is not None and self.heads < 1:
            yield f"{self.heads} heads give no output; take 1 or more"
        if not self.deep_supervision and self.heads not in (None, 1):
            yield f"{self.heads} heads are deep supervision, which is switched off; give one of them"

    def _region_problems(self) -> Iterator[str]:
        if self.brats and self.regions is not None:
            yield "--brats and --regions both say what the regions are; give one of them"
        if self.regions_order and self.regions is None:
            yield "--regions-order says how the regions of --regions are written; give them, too"
        if self.regions is not None:
            try:
                parse_regions(self.regions)
            except OptionError as problem:
                yield f"regions: {problem.problem}; {problem.remedy}"
