"""Follow the trainings of several configurations: the progress of each becomes one state of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from decathlete.core.choices import Configuration
from decathlete.core.progress import CaseProgress
from decathlete.training.reporting.progress import TrainingProgress
from decathlete.training.reporting.records import EpochRecord
from decathlete.workflows.progress import ProgressReporter
from decathlete.workflows.training_jobs import Job, JobState


class JobsProgress(ProgressReporter):
    """Receives the progress of one job after the other, and reports the states of all to another reporter.

    Args:
        states: states at the start.
        reporter: receives the states, and the progress of everything that belongs to no job.
        clock: returns the current time, seconds.
    """

    def __init__(
        self, states: Sequence[JobState], reporter: ProgressReporter, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._states = {state.job: state for state in states}
        self._reporter = reporter
        self._clock = clock
        self._current: Job | None = None
        self._began_s = self._training_began_s = 0.0

    @property
    def states(self) -> tuple[JobState, ...]:
        """The state of every job."""
        return tuple(self._states.values())

    def limit(self, job: Job, max_time_s: float | None) -> None:
        """Set the time of a job that has not begun."""
        self._states[job] = replace(self._states[job], max_time_s=max_time_s)

    def leave_out(self, name: Configuration) -> None:
        """Remove the jobs of a configuration, none of which has begun."""
        self._states = {job: state for job, state in self._states.items() if job.configuration != name}
        self._reporter.jobs(self.states)

    def begin(self, job: Job) -> None:
        """Report that a job begins."""
        self._current = job
        self._began_s = self._clock()

    def finish(self, job: Job, *, dice: float | None) -> None:
        """Report that a job is finished and scored."""
        total_s = self._clock() - self._began_s if self._current == job and not self._is_finished(job) else None
        self._update(job, status="finished", share=1.0, dice=dice, total_s=total_s)
        self._current = None

    def fail(self, job: Job) -> None:
        """Report that a job failed."""
        self._update(job, status="failed")
        self._current = None

    def cases(self, doing: str) -> CaseProgress | None:
        """Report the cases of a job as its status; those of other work to the reporter."""
        if self._current is None:
            return self._reporter.cases(doing)
        if doing == "predict" and not self._is_finished(self._current):
            self._update(self._current, status="scoring")
        return None

    def training(self) -> TrainingProgress | None:
        """Return the object that receives the steps of the current job."""
        if self._current is None:
            return self._reporter.training()
        self._training_began_s = self._clock()
        if not self._is_finished(self._current):
            self._update(self._current, status="training")
        return self

    def on_step(self, step: int, progress: float) -> None:  # noqa: ARG002 - part of the protocol
        """Report the progress of the current training."""
        if self._current is not None:
            training_s = self._clock() - self._training_began_s
            self._update(self._current, status="training", share=progress, training_s=training_s)

    def on_epoch(self, record: EpochRecord) -> None:
        """Do nothing: the logs of the run contain the epochs."""

    def step(self, title: str) -> None:
        """Report a step that belongs to no job."""
        if self._current is None:
            self._reporter.step(title)

    def _is_finished(self, job: Job) -> bool:
        """Return whether a job was finished by an earlier command: its files are checked again, without a step."""
        return self._states[job].status == "finished"

    def _update(self, job: Job, **changes: Any) -> None:
        self._states[job] = replace(self._states[job], **changes)
        self._reporter.jobs(self.states)
