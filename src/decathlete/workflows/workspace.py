"""Where things lie: the roots of raw data, prepared data and results, and the folders under them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decathlete.dataset.manifest import resolve_task
from decathlete.planning.network_spec import Dims

FoldName = int | Literal["all"]


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The three roots.

    Attributes:
        data: raw datasets, never written to.
        prepared: plans and prepared stores, ``<dataset>/<2d|3d>``.
        results: everything a run makes, ``<dataset>/<2d|3d>/fold_<k>``.
    """

    data: Path = Path("data")
    prepared: Path = Path("prepared")
    results: Path = Path("results")

    def dataset(self, task: str | Path) -> Path:
        """The raw dataset's folder: from a number (``04``), a folder name under ``data``, or a path."""
        return resolve_task(str(task), self.data)

    def prepared_folder(self, task: str | Path, dims: Dims) -> Path:
        """Where the prepared data of one configuration lie."""
        return self.prepared / self.dataset(task).resolve().name / f"{dims}d"

    def run_folder(self, task: str | Path, dims: Dims, fold: FoldName) -> Path:
        """Where the results of one fold lie."""
        return self.results_folder(task, dims) / f"fold_{fold}"

    def results_folder(self, task: str | Path, dims: Dims) -> Path:
        """Where the folds of one configuration lie, and what is made of several of them."""
        return self.results / self.dataset(task).resolve().name / f"{dims}d"
