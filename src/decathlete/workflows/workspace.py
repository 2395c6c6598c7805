"""The root folders of raw data, prepared data and results, and the folders below them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decathlete.dataset.manifest import resolve_task
from decathlete.planning.network_spec import Dims

FoldName = int | Literal["all"]


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The three root folders.

    Attributes:
        data: raw datasets, which are never written to.
        prepared: plans and prepared stores, ``<dataset>/<2d|3d>``.
        results: results of runs, ``<dataset>/<2d|3d>/fold_<k>``.
    """

    data: Path = Path("data")
    prepared: Path = Path("prepared")
    results: Path = Path("results")

    def dataset(self, task: str | Path) -> Path:
        """Return the folder of a raw dataset, given by number (``04``), folder name under ``data``, or path."""
        return resolve_task(str(task), self.data)

    def prepared_folder(self, task: str | Path, dims: Dims) -> Path:
        """Return the folder of the prepared data of one configuration."""
        return self.prepared / self.dataset(task).resolve().name / f"{dims}d"

    def run_folder(self, task: str | Path, dims: Dims, fold: FoldName) -> Path:
        """Return the folder of the results of one fold."""
        return self.results_folder(task, dims) / f"fold_{fold}"

    def results_folder(self, task: str | Path, dims: Dims) -> Path:
        """Return the folder of the folds of one configuration, which also contains the results of cross-validation."""
        return self.results / self.dataset(task).resolve().name / f"{dims}d"
