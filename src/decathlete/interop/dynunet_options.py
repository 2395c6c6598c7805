"""Settings of a checkpoint of NVIDIA's recipe that it may not contain itself."""

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
    """Options of an import from NVIDIA's recipe. Options that are not set have the values of the task.

    Attributes:
        task: the recipe's task: number or folder (``04``, ``Task04_Hippocampus``); default: the checkpoint's task.
        dims: expected dimensions of the network.
        patch_size: voxels; z, y, x or y, x.
        spacing: target spacing, mm; z, y, x or y, x. Without it, a 2D model uses slices without resampling.
        modality: CT is clipped and scaled by ``ct_stats``; MRI is z-scored over non-zero voxels.
        ct_stats: lower clip limit, upper clip limit, mean and standard deviation, HU.
        dataset: folder whose ``dataset.json`` names channels and labels.
        channels: names of the image channels; they replace the names in the dataset or the task.
        labels: names of the foreground classes 1, 2, ...; they replace the names in the dataset or the task.
        brats: whether the outputs are whole tumour, core and enhancing tumour; default: the checkpoint's option.
        regions: regions of the outputs, if they are others: name -> label values, outer regions first.
        norm: instance or group norm, if the checkpoint does not determine it.
        negative_slope: negative slope of the leaky ReLU, if the checkpoint does not determine it.

    Raises:
        OptionError: options are wrong or contradict each other; the message lists all problems.
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
        if problems := list(self._find_problems()):
            raise problems_found(problems, where="import options", remedy="fix these options", kind=OptionError)

    def _find_problems(self) -> Iterator[str]:
        if self.modality not in (None, *get_args(Modality)):
            yield f"modality is {self.modality!r}; choose {' or '.join(get_args(Modality))}"
        if self.patch_size is not None and min(self.patch_size, default=0) < 1:
            yield f"the patch size {self.patch_size} is not positive"
        if self.spacing is not None and not (self.spacing and all(isfinite(s) and s > 0 for s in self.spacing)):
            yield f"spacing {self.spacing} is not a list of positive numbers"
        if self.ct_stats is not None:
            yield from _find_ct_problems(self.ct_stats)
            if self.modality == "MRI":
                yield "--ct-stats is for CT, but --modality is MRI"
        if len({"background", *self.labels}) <= len(self.labels):
            yield f"--labels {','.join(self.labels)}: use a different name for each class, without background"
        if self.brats and self.regions is not None:
            yield "--brats and --regions both define the outputs; use one of them"
        if self.regions is not None:
            try:
                parse_regions(self.regions)
            except OptionError as problem:
                yield f"regions: {problem.problem}; {problem.remedy}"
        if self.negative_slope is not None and not 0 <= self.negative_slope <= 1:
            yield f"negative_slope is {self.negative_slope}; use 0 to 1"


def _find_ct_problems(ct_stats: tuple[float, ...]) -> Iterator[str]:
    if len(ct_stats) != 4:
        yield f"--ct-stats needs 4 numbers (clip low, clip high, mean, standard deviation), it has {len(ct_stats)}"
    elif not all(map(isfinite, ct_stats)):
        yield f"--ct-stats {ct_stats} contains NaN or infinity"
    elif ct_stats[0] >= ct_stats[1] or ct_stats[3] <= 0:
        yield f"--ct-stats {ct_stats}: the first must be below the second, and the standard deviation positive"
