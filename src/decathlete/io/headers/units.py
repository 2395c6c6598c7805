"""Units of length in headers."""

from __future__ import annotations

from pathlib import Path

from decathlete.errors import ImageError
from decathlete.io.headers.text import shorten

_MM = {
    **dict.fromkeys(("mm", "millimeter", "millimeters"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "\\u00b5m"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometers"), 1e-6),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), 10.0),
    **dict.fromkeys(("m", "meter", "meters"), 1000.0),
    **dict.fromkeys(("inch", "in", '"'), 25.4),
}


def mm_per_unit(name: str) -> float | None:
    """Return the length of a unit, mm; ``None``: it is not known.

    >>> mm_per_unit("um"), mm_per_unit("parsec")
    (0.001, None)
    """
    return _MM.get(name)


def require_mm_per_unit(path: Path, field: str, name: str) -> float:
    """Return the length of a unit, mm; an empty name is mm.

    Raises:
        ImageError: the unit is not known.
    """
    mm = mm_per_unit(name.strip().lower()) if name.strip() else 1.0
    if mm is None:
        raise ImageError(
            f"declares lengths in the unit {shorten(name)} ({field}), which is not known",
            where=path,
            remedy="store the lengths in mm, um, nm, cm, m or in",
            code="E-IMAGE-SPACING",
        )
    return mm
