"""Read the header and the rows of a CSV file, as spreadsheets write them."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path

from decathlete.core.files import read_text
from decathlete.errors import DatasetError


def read_rows(
    path: Path, columns: Collection[str], *, error: type[DatasetError], remedy: str, code: str | None = None
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and the cells of each row that is not empty with the number of its last line.

    Cells are separated by commas, semicolons or tabs, whichever is the most frequent in the first line.

    Args:
        columns: names that are known in upper and lower case; they are returned in lower case.

    Raises:
        error: the file cannot be read or is not a table.
    """
    text = read_text(path, error=error).removeprefix("\ufeff")
    first = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count))
    try:
        header = [name.strip() for name in next(lines, [])]
        header = [name.lower() if name.lower() in columns else name for name in header]
        numbered = [(lines.line_num, [cell.strip() for cell in cells]) for cells in lines]
    except csv.Error as problem:  # usually an unmatched quotation mark
        raise error(f"is not a table: line {lines.line_num}: {problem}", where=path, remedy=remedy, code=code) from None
    return header, [(line, cells) for line, cells in numbered if any(cells)]
