"""Durations as text."""

from __future__ import annotations

import re

from decathlete.errors import OptionError

_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(d|h|m|s)", re.IGNORECASE)
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def parse_duration(text: str) -> float:
    """Convert a duration such as ``20m``, ``1h30m``, ``90s`` or ``2d`` to seconds.

    >>> parse_duration("1h30m")
    5400.0

    Raises:
        OptionError: ``text`` is not a positive duration with units.
    """
    compact = text.strip().replace(" ", "")
    parts = _PART.findall(compact)
    seconds = sum(float(n) * _SECONDS[unit.lower()] for n, unit in parts)
    if not parts or "".join(n + u for n, u in parts) != compact or seconds <= 0:
        raise OptionError(
            f"{text!r} is not a duration", remedy="write it with units: 90s, 20m, 1h30m, 2d", code="E-OPTION-SYNTAX"
        )
    return seconds


def format_duration(seconds: float) -> str:
    """Format seconds as ``1 h 30 min``, ``4 min 10 s`` or ``3.2 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"
