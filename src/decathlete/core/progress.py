"""Progress over many cases: the one protocol by which every command and function reports it."""

from __future__ import annotations

from typing import Protocol


class CaseProgress(Protocol):
    """Called after each finished case."""

    def __call__(self, done: int, total: int, case_id: str | None) -> None:
        """``done`` of ``total`` cases are finished, ``case_id`` the last of them; ``None`` before the first."""
        ...
