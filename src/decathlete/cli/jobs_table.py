"""The trainings of several configurations on the command line: one live table on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from decathlete.cli.progress import LINE_EVERY_S, TerminalReporter
from decathlete.core.durations import format_duration
from decathlete.core.progress import CaseProgress
from decathlete.planning.plan import Plan
from decathlete.workflows.training_jobs import JobState


class JobsReporter(TerminalReporter):
    """Shows all trainings in one table, which is redrawn on a terminal.

    A log gets a line when the status of a training changes, and one every 15 seconds of a training.
    """

    def __init__(self) -> None:
        super().__init__()
        self._live: Live | None = None
        self._states: Sequence[JobState] = ()
        self._left_s: float | None = None
        self._caption = ""
        self._last: dict[str, JobState] = {}
        self._last_line = time.monotonic()

    def plan(self, plan: Plan) -> None:
        """Show nothing: the plan is in the report of each training."""

    def cases(self, doing: str) -> CaseProgress:
        """Show cases below the table while there is one: a terminal has one live display at a time."""
        return super().cases(doing) if self._live is None else partial(self._show_cases, doing)

    def _show_cases(self, doing: str, done: int, total: int, case_id: str | None) -> None:  # noqa: ARG002 - protocol
        self._caption = f"{doing} {done}/{total}" if done < total else ""
        self._draw()

    def jobs(self, states: Sequence[JobState]) -> None:
        """Show the states."""
        self._states = states
        if self.console.is_terminal:
            self._draw()
        else:
            self._write_lines(states)

    def jobs_left(self, seconds: float | None) -> None:
        """Keep the time that is left, for the states that follow."""
        self._left_s = seconds

    def jobs_end(self) -> None:
        """Stop redrawing the table and leave it on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        table = make_table(self._states, left_s=self._left_s, caption=self._caption)
        if self._live is None:
            self._live = Live(table, console=self.console, refresh_per_second=2, transient=False)
            self._live.start()
        self._live.update(table)

    def _write_lines(self, states: Sequence[JobState]) -> None:
        for state in states:
            before = self._last.get(str(state.job))
            changed = before is not None and before.status != state.status
            due = state.status == "training" and time.monotonic() - self._last_line > LINE_EVERY_S
            if changed or due:
                self._last_line = time.monotonic()
                left = describe_time_left(states, self._left_s)
                self.console.print(f"{state.job}: {describe_status(state)}; {left}", markup=False)
        self._last = {str(state.job): state for state in states}


def describe_status(state: JobState) -> str:
    """Return the status of a training in words.

    >>> from decathlete.workflows.training_jobs import Job
    >>> describe_status(JobState(job=Job(configuration="3d", fold=0), status="training", share=0.25))
    'training 25 %'
    """
    if state.status == "training":
        return f"training {state.share:.0%}".replace("%", " %")
    if state.status == "finished" and state.dice is not None:
        return f"finished, Dice {state.dice:.3f}"
    return state.status


def describe_time_left(states: Sequence[JobState], left_s: float | None) -> str:
    """Return how many trainings are finished, and the estimated time of what is left, if it is known."""
    n_done = sum(not state.is_open for state in states)
    left = "" if left_s is None or n_done == len(states) else f", about {format_duration(left_s)} left"
    return f"{n_done} of {len(states)} trainings done{left}"


def make_table(states: Sequence[JobState], *, left_s: float | None = None, caption: str = "") -> Group:
    """Return the table of all trainings, a row for each configuration, a column for each fold; and lines around it."""
    folds = sorted({state.job.fold for state in states})
    table = Table()
    table.add_column("configuration")
    for fold in folds:
        table.add_column(f"fold {fold}")
    by_job = {(state.job.configuration, state.job.fold): state for state in states}
    for name in dict.fromkeys(state.job.configuration for state in states):
        found = [by_job.get((name, fold)) for fold in folds]
        table.add_row(name, *("" if state is None else describe_status(state) for state in found))
    # A title of the table itself would be wrapped at the width of the table.
    title = Text(describe_time_left(states, left_s), style="bold")
    return Group(title, table, *([Text(caption)] if caption else []))
