"""Read cases from a CSV file with one row per case."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from decathlete.core.digits import parse_digits
from decathlete.dataset.csv_rows import read_rows
from decathlete.dataset.listed_cases import case_ids, drive_problems, listed_file
from decathlete.dataset.spec import Case, id_problems
from decathlete.dataset.splits import Fold
from decathlete.errors import DatasetError, problems_found

_log = logging.getLogger(__name__)

_KNOWN = ("case", "image", "label", "group", "split")
_MEANT = {
    **dict.fromkeys(("id", "case_id", "name"), "case"),
    **dict.fromkeys(("mask", "seg", "segmentation", "annotation"), "label"),
    **dict.fromkeys(("patient", "patient_id", "subject", "subject_id"), "group"),
    **dict.fromkeys(("fold", "folds", "set", "subset"), "split"),
}
"""Other names of columns -> the name that the table must use."""
_SPLITS = {"": "train", "train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}
_HELP = (
    "columns: case, image (or one per channel, with the name of the channel), label, and optionally group and split "
    "(train, val, test, or the number of the fold that holds the case out)"
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """The cases of a dataset without a manifest.

    Attributes:
        channels: names of the channels; empty for a CSV file with a column ``image``.
        groups: case id -> patient, if the table has a column ``group``.
        folds: folds of cross-validation, if the table has a column ``split``.
    """

    cases: tuple[Case, ...]
    test_cases: tuple[Case, ...]
    channels: tuple[str, ...]
    groups: dict[str, str] = field(default_factory=dict)
    folds: tuple[Fold, ...] = ()


def read_table(path: Path, *, channels: Sequence[str] = ()) -> Table:
    """Read a table of paths, relative to its folder or absolute, separated by commas, semicolons or tabs.

    Args:
        channels: the columns that are channels, in this order; empty: all columns without another meaning.

    Raises:
        DatasetError: the table is not valid; lists every problem.
    """
    header, cells_of = read_rows(path, _KNOWN, error=DatasetError, remedy=_HELP, code="E-DATASET-TABLE")
    rows = [(line, dict(zip(header, cells, strict=False))) for line, cells in cells_of]
    problems: list[str] = []
    columns = _channel_columns(header, channels, problems)
    problems += _stray_cells(header, cells_of)
    if problems:
        raise problems_found(problems, where=path, remedy=_HELP, kind=DatasetError, code="E-DATASET-TABLE")
    if unused := [name for name in header if name and name not in (*_KNOWN, *columns)]:
        _log.warning("%s: not used: %s (columns without a meaning here)", path, ", ".join(unused))
    parsed = _with_names(
        [_parse_row(row, line, columns or ("image",), path.parent, problems) for line, row in rows], path.parent
    )
    parts = {part: tuple(r for r in parsed if (r.split == "test") == (part == "test")) for part in ("training", "test")}
    for part, members in parts.items():
        problems += id_problems((r.case for r in members), part)
    problems += drive_problems((r.case for r in parsed), path.parent)
    problems += [f"line {r.line}: case {r.case.id} has no label" for r in parts["training"] if r.case.label is None]
    problems += [] if parts["training"] else ["it has no training case"]
    if not channels:
        problems += _stray_columns(columns, [r.case.images for r in parsed])
    folds = _folds(parts["training"], problems)
    if problems:
        raise problems_found(problems, where=path, remedy=_HELP, kind=DatasetError, code="E-DATASET-TABLE")
    return Table(
        cases=tuple(r.case for r in parts["training"]),
        test_cases=tuple(r.case for r in parts["test"]),
        channels=columns,
        groups={r.case.id: r.group for r in parts["training"] if r.group},
        folds=folds,
    )


@dataclass(frozen=True, kw_only=True)
class _Row:
    line: int
    case: Case
    group: str
    split: str


def _channel_columns(header: list[str], channels: Sequence[str], problems: list[str]) -> tuple[str, ...]:
    """Return the columns that are channels; empty if there is a column ``image``."""
    problems += [f"two columns are called {name!r}" for name in sorted({n for n in header if header.count(n) > 1})]
    others = tuple(name for name in header if name and name not in _KNOWN)
    meant = {name: _MEANT[name.lower()] for name in others if name.lower() in _MEANT and name not in channels}
    problems += [
        f"column {name!r} is not known: call it {known!r}" for name, known in meant.items() if known not in header
    ]
    if "label" not in header:
        problems.append("it has no column 'label'")
    if "image" in header:
        return ()
    missing = [name for name in channels if name not in others]
    if missing or not others:
        problems.append(f"it has no column {', '.join(map(repr, missing or ['image']))}; it has {', '.join(header)}")
    if "case" not in header:
        problems.append("it has no column 'case'")
    return tuple(channels) or others


def _stray_cells(header: list[str], cells_of: Sequence[tuple[int, list[str]]]) -> list[str]:
    """Return a problem for each row with more cells than there are columns."""
    return [
        f"line {line}: {len(cells)} cells, but {len(header)} columns: write a path with a separator in quotation marks"
        for line, cells in cells_of
        if any(cells[len(header) :])
    ]


def _stray_columns(columns: Sequence[str], rows: Sequence[tuple[Path, ...]]) -> list[str]:
    """Return a problem for each column that was taken for a channel, but lists no file, as the others do."""
    exists = {name: any(paths[place].exists() for paths in rows) for place, name in enumerate(columns)}
    names = ",".join(name for name in columns if exists[name])
    return [
        f"column {name!r} is taken for a channel, but none of its files exists (for example {rows[0][place].name!r}): "
        f"if it is no channel, name those that are: --channels {names}"
        for place, name in enumerate(columns)
        if names and not exists[name]
    ]


def _parse_row(row: dict[str, str], line: int, columns: tuple[str, ...], folder: Path, problems: list[str]) -> _Row:
    paths = [row.get(column, "") for column in columns]
    problems += [f"line {line}: no file for {c!r}" for c, p in zip(columns, paths, strict=True) if not p]
    label, split = row.get("label", ""), row.get("split", "").lower()
    if split not in _SPLITS and parse_digits(split) is None:
        problems.append(f"line {line}: split {row['split']!r} is not train, val, test or the number of a fold")
    case = Case(
        id=row.get("case", ""),
        images=tuple(listed_file(folder, p) for p in paths),
        label=listed_file(folder, label) if label else None,
        group=row.get("group") or None,
    )
    return _Row(line=line, case=case, group=row.get("group", ""), split=_SPLITS.get(split, split))


def _with_names(rows: Sequence[_Row], folder: Path) -> list[_Row]:
    """Return the rows, whose cases without a name get that of their image."""
    unnamed = [row.case.images for row in rows if not row.case.id]
    names = iter(case_ids(unnamed, folder))
    return [row if row.case.id else replace(row, case=replace(row.case, id=next(names))) for row in rows]


def _folds(rows: Sequence[_Row], problems: list[str]) -> tuple[Fold, ...]:
    """Make the folds of the column ``split``: one per number, or a single one from ``val``."""
    numbers = {row.split for row in rows if parse_digits(row.split) is not None}
    if numbers and any(row.split not in numbers for row in rows):
        problems.append("split is the number of a fold in some rows and not in others")
        return ()
    held_out = sorted(numbers, key=int) or (["val"] if any(row.split == "val" for row in rows) else [])
    if numbers and [int(n) for n in held_out] != list(range(len(held_out))):
        problems.append(f"folds are numbered 0, 1, ...; the column split has {', '.join(held_out)}")
    return tuple(
        Fold(
            train=tuple(r.case.id for r in rows if r.split != name),
            val=tuple(r.case.id for r in rows if r.split == name),
        )
        for name in held_out
    )
