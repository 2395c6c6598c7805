"""Follow the trainings of several configurations: the progress of each becomes one state of all.

An executor does not report which jobs it runs. It begins as many as its workers can run at once, in their order, and
the next one when one ends.
"""

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
from decathlete.workflows.training_jobs import Job, JobState, time_left


class JobsProgress(ProgressReporter):
    """Receives the progress of one job after the other, and reports the states of all to another reporter.

    Args:
        states: states at the start.
        reporter: receives the states, and the progress of everything that belongs to no job.
        selection_s: returns the expected seconds of what follows the last job.
        at_once: number of jobs that run at the same time, more than 1 on an executor.
        clock: returns the current time, seconds.
    """

    def __init__(
        self,
        states: Sequence[JobState],
        reporter: ProgressReporter,
        *,
        selection_s: Callable[[Sequence[JobState]], float] = lambda _: 0.0,
        at_once: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._states = {state.job: state for state in states}
        self._reporter = reporter
        self._selection_s = selection_s
        self._at_once = at_once
        self._clock = clock
        self._current: Job | None = None
        self._began_s: dict[Job, float] = {}
        self._training_began_s = 0.0
        self._queue: list[Job] = []

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
        self.report()

    def report(self) -> None:
        """Report the time that is left, and the states."""
        now_s = self._clock()
        for job, state in self._states.items():
            if state.status == "running":
                self._states[job] = replace(state, training_s=now_s - self._began_s[job])
        left_s = time_left(self.states, at_once=self._at_once)
        self._reporter.jobs_left(None if left_s is None else left_s + self._selection_s(self.states) / self._at_once)
        self._reporter.jobs(self.states)

    def begin(self, job: Job) -> None:
        """Report that a job begins."""
        self._current = job
        self._began_s[job] = self._clock()

    def begin_together(self, jobs: Sequence[Job]) -> None:
        """Report that an executor gets these jobs."""
        self._queue = [job for job in jobs if not self._is_finished(job)]
        self._begin_queued()
        self.report()

    def end_together(self) -> None:
        """Report that the executor begins no more jobs."""
        self._queue = []

    def _begin_queued(self) -> None:
        """Let the executor begin as many jobs as it can run at once."""
        n_running = sum(state.status == "running" for state in self._states.values())
        for job in self._queue[: max(self._at_once - n_running, 0)]:
            self._queue.remove(job)
            self._began_s[job] = self._clock()
            self._states[job] = replace(self._states[job], status="running")

    def finish(self, job: Job, *, dice: float | None) -> None:
        """Report that a job is finished and scored."""
        began_s, state = self._began_s.pop(job, None), self._states[job]
        changes: dict[str, Any] = {}
        if began_s is not None and not self._is_finished(job):
            total_s = self._clock() - began_s
            changes["total_s"] = total_s
            if state.status == "running":  # how much of it was scoring is known only with a time limit
                changes["training_s"] = total_s if state.max_time_s is None else min(state.max_time_s, total_s)
        self._end(job, status="finished", share=1.0, dice=dice, **changes)

    def fail(self, job: Job) -> None:
        """Report that a job failed."""
        self._began_s.pop(job, None)
        self._end(job, status="failed")

    def _end(self, job: Job, **changes: Any) -> None:
        self._states[job] = replace(self._states[job], **changes)
        self._queue = [queued for queued in self._queue if queued != job]
        self._begin_queued()
        self._current = None
        self.report()

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
        self.report()
