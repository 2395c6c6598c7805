"""The protocol by which every function that works through many cases reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class CaseProgress(Protocol):
    """A function that is called after each finished case."""

    def __call__(self, done: int, total: int, case_id: str | None, /) -> None:
        """Report that ``done`` of ``total`` cases are finished.

        Args:
            case_id: the case that was finished last; ``None`` before the first.
        """
        ...


ProgressOfStep = Callable[[str], CaseProgress | None]
"""Called with the title of each step of a command; returns the progress of its cases, or ``None``."""
