"""The root folders of raw data, prepared data and results, and the folders below them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decathlete.core.choices import Configuration
from decathlete.dataset.find_dataset import resolve_task
from decathlete.planning.network_spec import Dims

FoldName = int | Literal["all"]


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The three root folders.

    Attributes:
        data: raw datasets, which are never written to.
        prepared: plans and prepared stores, ``<dataset>/<configuration>``.
        results: results of runs, ``<dataset>/<configuration>/fold_<k>``.
    """

    data: Path = Path("data")
    prepared: Path = Path("prepared")
    results: Path = Path("results")

    def __post_init__(self) -> None:
        # Users give texts, whatever the types say.
        for name in ("data", "prepared", "results"):
            object.__setattr__(self, name, Path(getattr(self, name)))

    def dataset(self, task: str | Path) -> Path:
        """Return the folder of a raw dataset, given by number (``04``), folder name under ``data``, or path."""
        return resolve_task(str(task), self.data)

    def prepared_folder(self, task: str | Path, which: Dims | Configuration) -> Path:
        """Return the folder of the prepared data of one configuration: its name, or its dimensions (``2d``, ``3d``)."""
        return self.prepared / self.dataset(task).resolve().name / folder_name(which)

    def run_folder(self, task: str | Path, which: Dims | Configuration, fold: FoldName) -> Path:
        """Return the folder of the results of one fold."""
        return self.results_folder(task, which) / f"fold_{fold}"

    def results_folder(self, task: str | Path, which: Dims | Configuration) -> Path:
        """Return the folder of the folds of one configuration, which also contains the results of cross-validation."""
        return self.results / self.dataset(task).resolve().name / folder_name(which)


def folder_name(which: Dims | Configuration) -> Configuration:
    """Return the name of a configuration, which may be given by its dimensions.

    >>> folder_name(2), folder_name("3d_lowres")
    ('2d', '3d_lowres')
    """
    if isinstance(which, str):
        return which
    return "2d" if which == 2 else "3d"
