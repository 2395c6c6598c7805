"""A progress bar that is redrawn on a terminal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class TerminalBar(ABC):
    """A bar that appears with its first figures.

    Args:
        title: stands before the bar.
    """

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    @abstractmethod
    def _make_progress(self) -> Progress:
        """Return the bar with its columns."""

    def _draw(self, done: float, total: float | None) -> None:
        if self._progress is None:
            self._progress = self._make_progress()
            self._task = self._progress.add_task(self._title, total=total, completed=int(done))
            self._progress.start()
        assert self._task is not None  # for the type checker: set together with the bar
        self._progress.update(self._task, completed=done, total=total)
        if total is not None and done >= total:
            self.stop()

    def stop(self) -> None:
        """Stop redrawing the bar and leave it on the screen."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
