"""Progress on the command line: bars on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from decathlete.cli.terminal import echo
from decathlete.cli.terminal_bar import TerminalBar
from decathlete.core.durations import format_duration
from decathlete.core.progress import CaseProgress
from decathlete.core.schema import Schema
from decathlete.errors import printable
from decathlete.planning.explain import explain
from decathlete.planning.plan import Plan
from decathlete.training.reporting.progress import TrainingProgress
from decathlete.workflows.progress import ProgressReporter

if TYPE_CHECKING:
    from decathlete.training.reporting.records import EpochRecord

LINE_EVERY_S = 15.0


def print_json(value: Schema) -> None:
    """Print a result as JSON on standard output."""
    echo(value.model_dump_json(indent=1))


class TerminalReporter(ProgressReporter):
    """Shows steps, the plan, cases and epochs on standard error; standard output has only the plan and results."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)

    def step(self, title: str) -> None:
        self.console.print(f"\n{printable(title)}", style="bold", markup=False)

    def plan(self, plan: Plan) -> None:
        echo(explain(plan))

    def cases(self, doing: str) -> CaseProgress:
        return Bar(self.console, doing).cases

    def training(self) -> TrainingProgress:
        return EpochLines(Bar(self.console, "train"))


class Bar(TerminalBar):
    """Shows one progress bar on a terminal; writes a line every 15 seconds to a log."""

    def __init__(self, console: Console, doing: str) -> None:
        super().__init__(console, doing)
        self._started = time.monotonic()
        self._last_line = self._started

    def cases(self, done: int, total: int, case_id: str | None) -> None:  # noqa: ARG002 - part of the protocol
        """Show the number of finished cases."""
        if self._console.is_terminal:
            self._draw(done, total)
        elif done == total or time.monotonic() - self._last_line > LINE_EVERY_S:
            self._line(done, total)

    def _make_progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )

    def _line(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._last_line = now
        elapsed = now - self._started
        left = elapsed / done * (total - done) if done else 0.0
        note = f", about {format_duration(left)} left" if left else ""
        self._console.print(f"{self._title} {done}/{total} in {format_duration(elapsed)}{note}")
        if done == total:
            self._started = now  # one bar may show several folds, one after the other


class EpochLines:
    """Writes one line for each epoch of a training."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar

    def on_step(self, step: int, progress: float) -> None:
        """Do nothing: a line for each step would be too much."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Write the figures of an epoch in one line."""
        dice = f"  {record.described_dice}" if record.described_dice else ""
        sys.stderr.write(
            f"epoch {record.epoch + 1}  step {record.step}  {format_duration(record.elapsed)}  "
            f"loss {record.train_loss:.3f}{dice}  {record.patches_per_second:.1f} patches/s\n"
        )
        sys.stderr.flush()
