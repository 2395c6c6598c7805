"""Whole numbers in text."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"[0-9]{1,18}")


def parse_digits(text: str) -> int | None:
    """Return the number that a text of 1 to 18 digits is, or ``None``.

    ``str.isdecimal`` accepts texts of any length, and ``str.isdigit`` characters that ``int`` rejects.

    >>> parse_digits("007"), parse_digits("-1"), parse_digits("²"), parse_digits("9" * 5000)
    (7, None, None, None)
    """
    return int(text) if _DIGITS.fullmatch(text) else None
