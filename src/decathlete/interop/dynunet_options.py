"""What a user says about a checkpoint of NVIDIA's recipe, which does not say it itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import get_args

from decathlete.core.choices import Modality, Norm
from decathlete.core.regions import GivenRegions, parse_regions
from decathlete.errors import OptionError, problems_found
from decathlete.planning.network_spec import Axes, Dims


@dataclass(frozen=True, kw_only=True)
class DynUNetOptions:
    """Of an import; what is not given comes from the task, or is asked for.

    Attributes:
        task: the recipe's task: number or folder (``04``, ``Task04_Hippocampus``); by default the one that the
            checkpoint names.
        dims: which the weights must be of.
        patch_size: voxels, z, y, x or y, x.
        spacing: mm, likewise. 2D models get slices as they are unless it is given.
        modality: CT is clipped and scaled by ``ct_stats``, MRI is z-scored over non-zero voxels.
        ct_stats: clip low, clip high, mean and standard deviation, HU.
        dataset: a folder whose ``dataset.json`` names channels and labels.
        channels: names of the image's channels, in place of the dataset's or the task's.
        labels: names of the foreground classes 1, 2, ..., likewise.
        brats: outputs are whole tumour, core and enhancing; by default what the checkpoint says.
        regions: what the outputs are, if other regions: name -> label values, outer ones first.
        norm: instance or group norm, if the checkpoint does not decide.
        negative_slope: of the leaky ReLU, if the checkpoint does not decide.

    Raises:
        OptionError: with every problem together.
    """

    task: str | None = None
    dims: Dims | None = None
    patch_size: Axes | None = None
    spacing: tuple[float, ...] | None = None
    modality: Modality | None = None
    ct_stats: tuple[float, ...] | None = None
    dataset: Path | None = None
    channels: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    brats: bool | None = None
    regions: GivenRegions | None = None
    norm: Norm | None = None
    negative_slope: float | None = None

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise problems_found(problems, where="import options", remedy="fix these options", kind=OptionError)

    def _problems(self) -> Iterator[str]:
        if self.modality not in (None, *get_args(Modality)):
            yield f"modality is {self.modality!r}; choose {' or '.join(get_args(Modality))}"
        if self.patch_size is not None and min(self.patch_size, default=0) < 1:
            yield f"a patch of {self.patch_size} voxels holds nothing"
        if self.spacing is not None and not (self.spacing and all(isfinite(s) and s > 0 for s in self.spacing)):
            yield f"spacing {self.spacing} is not of positive numbers"
        if self.ct_stats is not None:
            yield from _ct_problems(self.ct_stats)
            if self.modality == "MRI":
                yield "--ct-stats are of CT, and --modality says MRI"
        if len({"background", *self.labels}) <= len(self.labels):
            yield f"--labels {','.join(self.labels)}: give each class a name of its own, without background"
        if self.brats and self.regions is not None:
            yield "--brats and --regions both say what the outputs are; give one of them"
        if self.regions is not None:
            try:
                parse_regions(self.regions)
            except OptionError as problem:
                yield f"regions: {problem.problem}; {problem.remedy}"
        if self.negative_slope is not None and not 0 <= self.negative_slope <= 1:
            yield f"negative_slope is {self.negative_slope}; take 0 to 1"


def _ct_problems(ct_stats: tuple[float, ...]) -> Iterator[str]:
    if len(ct_stats) != 4:
        yield f"--ct-stats needs 4 numbers (clip low, clip high, mean, standard deviation), it has {len(ct_stats)}"
    elif not all(map(isfinite, ct_stats)):
        yield f"--ct-stats {ct_stats} are not all numbers"
    elif ct_stats[0] >= ct_stats[1] or ct_stats[3] <= 0:
        yield f"--ct-stats {ct_stats}: the first must be below the second, and the standard deviation positive"
