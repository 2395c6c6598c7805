"""The cells of the ladder: a dataset, a training time, a program and a seed; and the record of their results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

OURS, NNUNET = "decathlete", "nnunet"


@dataclass(frozen=True, kw_only=True)
class DatasetSetup:
    """How a dataset is trained.

    Attributes:
        dims: dimensions of the networks.
        folds: the folds of five (or of ``n_folds``) that are trained and scored; several where few cases are held out.
        brats: train and score the regions of BraTS.
        channels: names of the channels of a dataset that consists of plain folders ``images`` and ``labels``.
        group_by: regular expression with one group that matches a case's patient.
    """

    dims: int = 3
    folds: tuple[int, ...] = (0,)
    n_folds: int = 5
    brats: bool = False
    channels: str | None = None
    group_by: str | None = None


DATASETS: Mapping[str, DatasetSetup] = {
    "Task04_Hippocampus": DatasetSetup(),
    "ACDC": DatasetSetup(),
    "STS_CT_respaced": DatasetSetup(folds=(0, 1, 2)),
    "STS_PETCT": DatasetSetup(folds=(0, 1, 2)),
    "BRATS2013_FLAIR_T1c": DatasetSetup(folds=(0, 1, 2), n_folds=3, brats=True),
    "DSB2018_nuclei": DatasetSetup(dims=2, channels="red,green,blue"),
    "Sunnybrook_LV2D": DatasetSetup(dims=2, channels="grey", group_by="(.+)-IM"),
}


@dataclass(frozen=True, kw_only=True, order=True)
class Cell:
    """One training and its scores on the held-out cases of one fold.

    Attributes:
        minutes: wall-clock time of the training.
        program: ``decathlete`` or ``nnunet``.
        precision: of nnU-Net, ``fp32`` or ``bf16``; empty for ours, which plans it.
    """

    dataset: str
    minutes: float
    program: str
    seed: int
    fold: int
    precision: str = ""

    def __str__(self) -> str:
        program = f"{self.program} {self.precision}".strip()
        return f"{self.dataset}, {self.minutes:g} min, fold {self.fold}, {program}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What was measured in a cell.

    Attributes:
        dice: case id -> mean over its structures; ``None``: undefined. On the grid of the files.
        structures: structure -> mean over the cases.
        patients: case id -> patient.
        minutes_in_all: wall-clock time with planning (ours) and predicting the held-out cases.
        notes: the machine and what the program did.
    """

    cell: Cell
    dice: Mapping[str, float | None]
    structures: Mapping[str, float | None]
    patients: Mapping[str, str]
    minutes_in_all: float
    notes: Mapping[str, Any]


def make_cells(
    datasets: Sequence[str],
    minutes: Sequence[float],
    seeds: Sequence[int],
    *,
    peer_seeds: Sequence[int],
    peer_precisions: Sequence[str],
) -> Iterator[Cell]:
    """Yield the cells, the shortest trainings first; both programs of a budget follow each other."""
    peers = product(peer_precisions, peer_seeds)
    programs = [*((OURS, "", seed) for seed in seeds), *((NNUNET, precision, seed) for precision, seed in peers)]
    for time, dataset in product(sorted(minutes), datasets):
        for fold, (program, precision, seed) in product(DATASETS[dataset].folds, programs):
            yield Cell(dataset=dataset, minutes=time, program=program, seed=seed, fold=fold, precision=precision)


def read_results(path: Path) -> list[CellResult]:
    """Read the results that were recorded; none if there is no file yet. A line that a kill cut off is left out."""
    if not path.is_file():
        return []
    return [_parse(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _parse(line: str) -> CellResult:
    values = json.loads(line)
    return CellResult(**{**values, "cell": Cell(**values["cell"])})


def append_result(path: Path, result: CellResult) -> None:
    """Add a result to the record, behind whole lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_text() if path.is_file() else ""
    if text and not text.endswith("\n"):
        path.write_text(text[: text.rfind("\n") + 1])
    with path.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def missing(cells: Iterable[Cell], results: Iterable[CellResult]) -> list[Cell]:
    """Return the cells that have no result yet."""
    known = {result.cell for result in results}
    return [cell for cell in cells if cell not in known]
