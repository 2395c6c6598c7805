"""The spacing of an image: from its file, or from the user where the file has none."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from decathlete.core.geometry import Triple
from decathlete.errors import ImageError

_AXES = ("between slices", "between rows", "between columns")


def complete_axes(stored_XYZ: Sequence[float | None], given_ZYX: Triple | None, path: Path) -> list[float]:
    """Return the spacing of each axis of a file, x first; :func:`complete_spacing` for any number of axes.

    Axes after the third are not in space: their missing spacing is 1.
    """
    space: list[float | None] = [*stored_XYZ[:3], *[1.0] * (3 - len(stored_XYZ))]
    z, y, x = complete_spacing(space[::-1], given_ZYX, path)
    others = [s if s is not None and isfinite(s) and s > 0 else 1.0 for s in stored_XYZ[3:]]
    return [*(x, y, z)[: len(stored_XYZ)], *others]


def complete_spacing(stored_ZYX: Sequence[float | None], given_ZYX: Triple | None, path: Path) -> Triple:
    """Return the spacing of a file, with the user's where the file has none.

    Args:
        stored_ZYX: spacing in the file along z, y and x, mm; ``None``, 0, a negative or a non-finite number: missing.
        given_ZYX: the user's, mm; used for the missing axes alone.

    Raises:
        ImageError: the spacing is missing, and the user has not given it.
    """
    known = [s is not None and isfinite(s) and s > 0 for s in stored_ZYX]
    if all(known) or given_ZYX is not None:
        z, y, x = (
            s if s is not None and k else (given_ZYX or (0.0,) * 3)[axis]
            for axis, (s, k) in enumerate(zip(stored_ZYX, known, strict=True))
        )
        return (z, y, x)
    missing = [
        name if s is None else f"{name} ({s:g})" for name, s, k in zip(_AXES, stored_ZYX, known, strict=True) if not k
    ]
    raise ImageError(
        f"has no spacing {', '.join(missing)}",
        where=path,
        remedy="export it again with its spacing, or add --spacing Z,Y,X (mm) if you know it",
        code="E-IMAGE-SPACING",
    )
