"""Cases from a CSV file: one row each, with the paths of its files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from decathlete.core.files import read_text
from decathlete.dataset.spec import Case, id_problems
from decathlete.dataset.splits import Fold
from decathlete.errors import DatasetError, problems_found
from decathlete.io.image_files import strip_suffix

_KNOWN = ("case", "image", "label", "group", "split")
_SPLITS = {"": "train", "train": "train", "training": "train", "val": "val", "validation": "val", "test": "test"}
_HELP = (
    "columns: case, image (or one per channel, called as the channel), label, and if wanted group and split (train, "
    "val, test, or the number of the fold that holds the case out)"
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cases without a manifest.

    Attributes:
        channels: their names; of a CSV file with a single column ``image``: none yet.
        groups: case id -> patient, where the table says so.
        folds: of cross-validation, where the table says so.
    """

    cases: tuple[Case, ...]
    test_cases: tuple[Case, ...]
    channels: tuple[str, ...]
    groups: dict[str, str] = field(default_factory=dict)
    folds: tuple[Fold, ...] = ()


def read_table(path: Path, *, channels: Sequence[str] = ()) -> Table:
    """Read a table of paths, relative to its folder or absolute; commas, semicolons or tabs.

    Args:
        channels: the columns that are channels, in this order; without it, all that have no other meaning.

    Raises:
        DatasetError: with every problem of the table together.
    """
    header, rows = _rows(path)
    problems: list[str] = []
    columns = _channel_columns(header, channels, problems)
    if problems:
        raise problems_found(problems, where=path, remedy=_HELP, kind=DatasetError, code="E-DATASET-TABLE")
    read = [_row(row, line, columns or ("image",), path.parent, problems) for line, row in rows]
    parts = {part: tuple(r for r in read if (r.split == "test") == (part == "test")) for part in ("training", "test")}
    for part, members in parts.items():
        problems += id_problems((r.case for r in members), part)
    problems += [f"line {r.line}: case {r.case.id} has no label" for r in parts["training"] if r.case.label is None]
    problems += [] if parts["training"] else ["it lists no case to train on"]
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


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header; and each row that is not empty, with the number of the line that it ends in."""
    text = read_text(path, error=DatasetError).removeprefix("\ufeff")
    first = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count))
    try:
        header = [name.strip() for name in next(lines, [])]
        header = [name.lower() if name.lower() in _KNOWN else name for name in header]
        found = [(lines.line_num, [cell.strip() for cell in cells]) for cells in lines]
    except csv.Error as problem:  # a quotation mark without its fellow, mostly
        raise DatasetError(
            f"is no table: line {lines.line_num}: {problem}", where=path, remedy=_HELP, code="E-DATASET-TABLE"
        ) from None
    rows = [(line, dict(zip(header, cells, strict=False))) for line, cells in found if any(cells)]
    return header, rows


def _channel_columns(header: list[str], wanted: Sequence[str], problems: list[str]) -> tuple[str, ...]:
    """The columns that are channels; none where there is a column ``image``."""
    problems += [f"two columns are called {name!r}" for name in sorted({n for n in header if header.count(n) > 1})]
    others = tuple(name for name in header if name and name not in _KNOWN)
    if "label" not in header:
        problems.append("it has no column 'label'")
    if "image" in header:
        return ()
    missing = [name for name in wanted if name not in others]
    if missing or not others:
        problems.append(f"it has no column {', '.join(map(repr, missing or ['image']))}; it has {', '.join(header)}")
    if "case" not in header:
        problems.append("it has no column 'case'")
    return tuple(wanted) or others


def _row(row: dict[str, str], line: int, columns: tuple[str, ...], folder: Path, problems: list[str]) -> _Row:
    paths = [row.get(column, "") for column in columns]
    problems += [f"line {line}: no file for {c!r}" for c, p in zip(columns, paths, strict=True) if not p]
    label, split = row.get("label", ""), row.get("split", "").lower()
    if split not in _SPLITS and not split.isdecimal():
        problems.append(f"line {line}: split {row['split']!r} is not train, val, test or a fold's number")
    case = Case(
        id=row.get("case") or strip_suffix(Path(paths[0]).name),
        images=tuple(folder / p for p in paths),
        label=folder / label if label else None,
        group=row.get("group") or None,
    )
    return _Row(line=line, case=case, group=row.get("group", ""), split=_SPLITS.get(split, split))


def _folds(rows: Sequence[_Row], problems: list[str]) -> tuple[Fold, ...]:
    """Of numbers: as many folds as there are; of ``val``: a single one."""
    numbers = {row.split for row in rows if row.split.isdecimal()}
    if numbers and any(not row.split.isdecimal() for row in rows):
        problems.append("split is a fold's number in some rows and not in others")
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
