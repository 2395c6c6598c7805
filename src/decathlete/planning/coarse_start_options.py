"""What the user sets about the coarse start of a training: its grid, its share, or that there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from decathlete.core.assignments import parse_value
from decathlete.core.schema import describe
from decathlete.planning.assignment import conflict_error, split_assignment
from decathlete.planning.plan import CoarseStart

_GRID = ("coarse_start", "coarse_start.target_spacing")
"""Fields that say with which coarse grid a training begins."""


def is_coarse_grid(assignment: str) -> bool:
    """Return whether an assignment sets a coarse grid, and not that there is none."""
    path, value = split_assignment(assignment)
    return path in _GRID and parse_value(value) is not None


def share_of_planned_start(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the assignments of ``coarse_start.share`` if the user sets no coarse start.

    They are for the start that the planner chooses, once the resolution is planned for the training time.
    """
    paths = [split_assignment(text)[0] for text in overrides]
    if any(path in _GRID for path in paths):
        return ()
    return tuple(text for text, path in zip(overrides, paths, strict=True) if path == "coarse_start.share")


def checked_share(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return :func:`share_of_planned_start`, checked before anything is measured or trained."""
    assignments = share_of_planned_start(overrides)
    pairs = [split_assignment(text) for text in assignments]
    try:
        for _, value in pairs:
            CoarseStart.model_validate({"target_spacing": (1, 1, 1), "share": parse_value(value)})
    except ValidationError as problem:
        raise conflict_error(describe(problem), pairs) from None
    return assignments


def ignore_distance_of_slices(data: dict[str, Any]) -> None:
    """Let the coarse start of a 2D plan keep the distance of slices where its own grid does, in place.

    One assignment can then set the coarse start of plans for slices and for volumes.
    """
    start, spacing = data["coarse_start"], data["target_spacing"]
    grid = start.get("target_spacing") if isinstance(start, dict) else None
    if isinstance(grid, list | tuple) and len(grid) == 3 and [*spacing][:1] == [None]:
        start["target_spacing"] = [None, *grid[1:]]
