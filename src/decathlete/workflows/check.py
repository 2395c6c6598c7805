"""Check a dataset: read every file, list every problem with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from decathlete.dataset.check import CheckReport, check_dataset
from decathlete.dataset.manifest import read_dataset
from decathlete.workflows.workspace import Workspace


def check(
    task: str | Path,
    *,
    workspace: Workspace = Workspace(),
    group_by: str | None = None,
    workers: int = 2,
    progress: Callable[[int, int, str | None], None] | None = None,
) -> CheckReport:
    """Read every file of a dataset once; nothing is changed. Whether it can be used is the report's ``ok``.

    Args:
        task: its number or folder name under ``workspace.data``, or a path.
        group_by: regular expression with one group that names a case's patient; see whether it fits every case.

    Raises:
        ManifestError: there is no dataset, or its ``dataset.json`` is invalid.
        OptionError: ``group_by`` does not fit the cases.
    """
    return check_dataset(read_dataset(workspace.dataset(task), group_by=group_by), workers=workers, progress=progress)
