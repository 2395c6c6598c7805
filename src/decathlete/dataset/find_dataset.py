"""Find the folder of a dataset: by its path, its name or its number."""

from __future__ import annotations

import re
from pathlib import Path

from decathlete.core.digits import parse_digits
from decathlete.errors import DatasetError

MANIFEST = "dataset.json"

FOLDS = "splits_final.json"
"""nnU-Net's list of folds: ``[{"train": [ids], "val": [ids]}, ...]``."""


def resolve_task(task: str, data_root: Path) -> Path:
    """Find a dataset folder by path, by its name below ``data_root``, or by number (``04``, ``4``).

    Raises:
        DatasetError: there is no such dataset, or the number fits several.
    """
    number = parse_digits(task)
    for folder in (Path(task), data_root / task):
        if (folder / MANIFEST).is_file():
            return folder
    for folder in (Path(task), data_root / task):
        if folder.is_dir() and number is None:
            return folder  # read_dataset reports what this folder lacks
    if number is None and Path(task).is_file():
        raise DatasetError(
            "is a file, not the folder of a dataset",
            where=task,
            remedy=f"use the folder with its {MANIFEST}{nearby_dataset(Path(task))}",
            code="E-DATASET-NOT-FOUND",
        )
    known = sorted(p.parent for p in data_root.glob(f"*/{MANIFEST}")) if data_root.is_dir() else []
    numbered = [p for p in known if number is not None and _number(p.name) == number]
    if len(numbered) == 1:
        return numbered[0]
    if numbered:
        names = ", ".join(p.name for p in numbered)
        raise DatasetError(
            f"task {task} fits several datasets: {names}",
            where=data_root,
            remedy="use the folder's name",
            code="E-DATASET-NOT-FOUND",
        )
    known_names = f"datasets there: {', '.join(p.name for p in known)}" if known else "there is no dataset in it"
    raise DatasetError(
        f"no dataset {task!r} ({known_names})",
        where=data_root,
        remedy=f"use a folder with a {MANIFEST}, its name below --data, or its number (Task04_..., Dataset004_...)",
        code="E-DATASET-NOT-FOUND",
    )


def nearby_dataset(path: Path) -> str:
    """Return the dataset around ``path``, or the first ones in it, as a clause; an empty text if there is none."""
    around = next((p for p in (path.parent, *path.resolve().parents[:2]) if (p / MANIFEST).is_file()), None)
    if around is not None:
        return f" ({around})"
    inside = sorted(p.parent.name for p in path.glob(f"*/{MANIFEST}")) if path.is_dir() else []
    more = f" and {len(inside) - 3} more" if len(inside) > 3 else ""
    return f" ({path} has {', '.join(inside[:3])}{more})" if inside else ""


def _number(name: str) -> int | None:
    match = re.match(r"(?:Task|Dataset)(\d+)_", name)
    return parse_digits(match[1]) if match else None
