"""Parsers of the values of options: lists of numbers and names, spacings, folds."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Literal

from decathlete.core.digits import parse_digits
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.cli.options import Dim
    from decathlete.core.geometry import Triple


def parse_dims(dim: Dim) -> Literal[2, 3]:
    """Parse the value of ``--dim``."""
    return 2 if dim == "2" else 3


def parse_integers(text: str | None, *, flag: str) -> tuple[int, ...] | None:
    """Parse a list of whole numbers, e.g. ``128,128,128``. ``None`` stays ``None``.

    Raises:
        OptionError: the text is not a list of whole numbers.
    """
    if text is None:
        return None
    parts = [parse_digits(part.strip()) for part in text.split(",")]
    numbers = tuple(number for number in parts if number is not None)
    if len(numbers) < len(parts):
        raise OptionError(
            f"{flag} {text!r} is not a list of whole numbers",
            remedy=f"write e.g. {flag} 128,128,128",
            code="E-OPTION-SYNTAX",
        )
    return numbers


def parse_decimals(text: str | None, *, flag: str, example: str) -> tuple[float, ...] | None:
    """Parse a list of numbers, e.g. ``1,0.8,0.8``. ``None`` stays ``None``.

    Raises:
        OptionError: the text is not a list of numbers.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(
            f"{flag} {text!r} is not a list of numbers", remedy=f"write e.g. {flag} {example}", code="E-OPTION-SYNTAX"
        ) from None


def parse_spacing(text: str | None) -> Triple | None:
    """Parse the value of ``--spacing``. ``None`` stays ``None``.

    Raises:
        OptionError: the text is not three positive numbers.
    """
    values = parse_decimals(text, flag="--spacing", example="3,0.8,0.8")
    if values is None:
        return None
    if len(values) != 3 or not all(isfinite(v) and v > 0 for v in values):
        raise OptionError(
            f"--spacing {text!r} is not three positive numbers",
            remedy="write the distances of slices, rows and columns in mm, e.g. --spacing 3,0.8,0.8",
            code="E-OPTION-SYNTAX",
        )
    return (values[0], values[1], values[2])


def parse_names(text: str | None) -> tuple[str, ...]:
    """Parse a list of names, e.g. ``liver,cancer``. ``None`` is an empty list."""
    return tuple(name for part in (text or "").split(",") if (name := part.strip()))


def parse_fold(text: str | None) -> int | Literal["all"]:
    """Parse the value of ``--fold``. ``None`` is fold 0.

    Raises:
        OptionError: the value is neither a whole number nor ``all``.
    """
    if text is None:
        return 0
    if text == "all":
        return "all"
    number = parse_digits(text)
    if number is None:
        raise OptionError(
            f"--fold {text!r} is not a fold", remedy="use a whole number from 0, or all", code="E-OPTION-FOLD"
        )
    return number
