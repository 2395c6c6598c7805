"""Lengths of time as people write them."""

from __future__ import annotations

import re

from decathlete.errors import OptionError

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|m|s)", re.IGNORECASE)
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def parse_duration(text: str) -> float:
    """Seconds in ``20m``, ``1h30m``, ``90s``, ``2d``.

    >>> parse_duration("1h30m")
    5400.0

    Raises:
        OptionError: it is not a positive duration with units.
    """
    compact = text.strip().replace(" ", "")
    parts = _PART.findall(compact)
    seconds = sum(float(n) * _SECONDS[unit.lower()] for n, unit in parts)
    if not parts or "".join(n + u for n, u in parts) != compact or seconds <= 0:
        raise OptionError(
            f"{text!r} is not a duration", remedy="write it with units: 90s, 20m, 1h30m, 2d", code="E-OPTION-SYNTAX"
        )
    return seconds


def say_duration(seconds: float) -> str:
    """``seconds`` for a reader: ``1 h 30 min``, ``4 min 10 s``, ``3.2 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"
