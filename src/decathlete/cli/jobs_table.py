"""The trainings of several configurations on the command line: one live table on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.live import Live
from rich.table import Table

from decathlete.cli.progress import LINE_EVERY_S, TerminalReporter
from decathlete.core.durations import format_duration
from decathlete.planning.plan import Plan
from decathlete.workflows.training_jobs import JobState, time_left


class JobsReporter(TerminalReporter):
    """Shows all trainings in one table, which is redrawn on a terminal.

    A log gets a line when the status of a training changes, and one every 15 seconds of a training.
    """

    def __init__(self) -> None:
        super().__init__()
        self._live: Live | None = None
        self._last: dict[str, JobState] = {}
        self._last_line = time.monotonic()

    def plan(self, plan: Plan) -> None:
        """Show nothing: the plan is in the report of each training."""

    def jobs(self, states: Sequence[JobState]) -> None:
        """Show the states."""
        if self.console.is_terminal:
            self._draw(states)
        else:
            self._write_lines(states)

    def jobs_end(self) -> None:
        """Stop redrawing the table and leave it on the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self, states: Sequence[JobState]) -> None:
        table = make_table(states)
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
                self.console.print(f"{state.job}: {describe_status(state)}; {describe_time_left(states)}", markup=False)
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


def describe_time_left(states: Sequence[JobState]) -> str:
    """Return how many trainings are finished, and the estimated time of the others."""
    n_done = sum(not state.is_open for state in states)
    left_s = time_left(states)
    left = "" if left_s is None or n_done == len(states) else f", about {format_duration(left_s)} left"
    return f"{n_done} of {len(states)} trainings done{left}"


def make_table(states: Sequence[JobState]) -> Table:
    """Return the table of all trainings: a row for each configuration, a column for each fold."""
    folds = sorted({state.job.fold for state in states})
    table = Table(title=describe_time_left(states), title_justify="left", title_style="bold")
    table.add_column("configuration")
    for fold in folds:
        table.add_column(f"fold {fold}")
    by_job = {(state.job.configuration, state.job.fold): state for state in states}
    for name in dict.fromkeys(state.job.configuration for state in states):
        found = [by_job.get((name, fold)) for fold in folds]
        table.add_row(name, *("" if state is None else describe_status(state) for state in found))
    return table
