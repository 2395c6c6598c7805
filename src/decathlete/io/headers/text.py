"""Parts of text headers: lines of limited length, and numbers of a known form."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import BufferedReader
from math import isfinite
from pathlib import Path

from decathlete.errors import ImageError

MAX_LINE = 65_536
"""Bytes of a header line with free text, such as the terminology of a segmentation."""

MAX_FIELD = 512
"""Bytes of a header line with numbers or names from a list."""

MAX_LINES = 10_000
"""Lines of a header, lists of files included."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][+-]?[0-9]{1,4})?")


def header_error(path: Path, problem: str) -> ImageError:
    """Return the error of a header that ``problem`` describes, as in ``"has no field sizes"``."""
    return ImageError(
        f"has a header that is not valid: it {problem}",
        where=path,
        remedy="correct the header, or export this file again",
        code="E-IMAGE-HEADER",
    )


def required_field(path: Path, fields: Mapping[str, str], name: str) -> str:
    """Return the text of a field.

    Raises:
        ImageError: the header does not have it.
    """
    if name not in fields:
        raise header_error(path, f"has no field {name}")
    return fields[name]


def shorten(text: str) -> str:
    """Return ``text`` in quotes, at most 60 characters of it, for a message."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def read_line(stream: BufferedReader, path: Path) -> str | None:
    """Read a line without its end; ``None`` at the end of the file.

    Raises:
        ImageError: the line is too long, or contains zero bytes.
    """
    line = stream.readline(MAX_LINE + 1)
    if len(line) > MAX_LINE:
        raise header_error(path, f"has a line of more than {MAX_LINE:,} bytes")
    if b"\0" in line:
        raise header_error(path, "contains zero bytes where text was expected")
    return line.decode("utf-8", "surrogateescape").rstrip("\r\n") if line else None


def check_field_length(path: Path, field: str, text: str) -> None:
    """Reject a field with numbers or known words that is longer than any of them can be."""
    if len(text) > MAX_FIELD:
        raise header_error(path, f"has a field {field} of {len(text):,} characters")


def integer(path: Path, field: str, text: str) -> int:
    """Read one integer."""
    return integers(path, field, text, 1)[0]


def integers(path: Path, field: str, text: str, count: int) -> tuple[int, ...]:
    """Read ``count`` integers that white space separates.

    Raises:
        ImageError: there are more or fewer, or one cannot be read.
    """
    return tuple(int(part) for part in _parts(path, field, text.split(), count, _INTEGER))


def numbers(path: Path, field: str, text: str, count: int) -> tuple[float, ...]:
    """Read ``count`` finite numbers that white space separates.

    Raises:
        ImageError: there are more or fewer, or one cannot be read or is not finite.
    """
    return numbers_of(path, field, text.split(), count)


def numbers_of(path: Path, field: str, parts: Sequence[str], count: int) -> tuple[float, ...]:
    """Read ``count`` finite numbers, one from each part."""
    values = tuple(float(part) for part in _parts(path, field, parts, count, _NUMBER))
    if not all(isfinite(value) for value in values):
        raise header_error(path, f"has a number in {field} that is not finite")
    return values


def _parts(path: Path, field: str, parts: Sequence[str], count: int, form: re.Pattern[str]) -> Sequence[str]:
    if len(parts) != count:
        raise header_error(path, f"has {len(parts)} numbers in {field}, where {count} were expected")
    for part in parts:
        if not form.fullmatch(part):
            raise header_error(path, f"has {shorten(part)} in {field}, which is not a number of the expected form")
    return parts
