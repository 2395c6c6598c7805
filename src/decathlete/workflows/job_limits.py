"""Fit trainings into the total time: set the time of those that begin late, and leave out configurations."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from decathlete.core.choices import Configuration
from decathlete.core.durations import format_duration
from decathlete.workflows.jobs_progress import JobsProgress
from decathlete.workflows.total_time import TotalTime
from decathlete.workflows.training_jobs import COMPARABLE_SHARE, SHORTEST_S, Job, JobState

LEAST_SHARE = 0.25
"""A training that begins late gets at least this share of its planned time."""
UNCHANGED_SHARE = 0.9
"""A warning says that a training is shortened to less than this share."""

log = logging.getLogger(__name__)


class JobLimits:
    """Decides before each training how long it takes.

    Args:
        total: the total time; ``None``: every training gets its planned time.
        planned_s: job -> planned time, seconds. The plans of the networks are made for it.
        kept: time of the jobs that an earlier command has started; they are not changed.
        may_leave_out: whether configurations may be left out, since the user did not name them.
        progress: the states of all jobs.
    """

    def __init__(
        self,
        total: TotalTime | None,
        *,
        planned_s: Mapping[Job, float | None],
        kept: Mapping[Job, float],
        may_leave_out: bool,
        progress: JobsProgress,
    ) -> None:
        self.total = total
        self._planned_s = planned_s
        self._kept = kept
        self._may_leave_out = may_leave_out
        self._progress = progress

    def is_left_out(self, name: Configuration) -> bool:
        """Return whether a configuration that is next is left out, and set the time of its trainings if it is not."""
        jobs = [job for job in self._planned_s if job.configuration == name]
        if self.total is not None and not any(job in self._kept for job in jobs):
            self._make_room(max(self._planned_s[job] or 0.0 for job in jobs))
            if name in self._names():
                self._set_time(jobs, f"{name}: each training takes", self._progress.states)
        return name not in self._names()

    def limit(self, job: Job) -> float | None:
        """Return the time of a job that begins now, seconds; ``None``: it has no time limit."""
        if self.total is not None and job not in self._kept:
            states = self._states_without_others(job.configuration, self._planned_s[job] or 0.0)
            self._set_time([job], f"{job}: training takes", states)
        state = next(state for state in self._progress.states if state.job == job)
        return state.max_time_s

    def plan_time(self, name: Configuration) -> float | None:
        """Return the training time that the plan of a configuration is made for, seconds; ``None``: no limit."""
        times = [state.max_time_s for state in self._progress.states if state.job.configuration == name]
        longest_s = max((time_s for time_s in times if time_s is not None), default=None)
        if self.total is None or longest_s is None:
            return longest_s
        is_begun = any(job.configuration == name for job in self._kept)
        return self.total.plan_time(name, longest_s, is_begun=is_begun)

    def add_preparing(self, name: Configuration, seconds: float) -> None:
        """Add the time of preparing a configuration."""
        if self.total is not None:
            self.total.add_preparing(name, seconds)

    def add_finished(self, job: Job) -> None:
        """Add the time of a job that is finished."""
        if self.total is not None:
            state = next(state for state in self._progress.states if state.job == job)
            self.total.add_job(state, is_resumed=job in self._kept)

    def _set_time(self, jobs: Sequence[Job], who: str, states: Sequence[JobState]) -> None:
        """Give jobs that begin now the time that is left for each open job.

        More than they had is given only once scoring was measured, with a reserve, and no more than keeps the trainings
        comparable.

        Args:
            states: of the jobs that are expected to be trained.
        """
        assert self.total is not None
        fitting_s = self._fitting_s(states)
        planned_s = max(self._planned_s[job] or 0.0 for job in jobs)
        before_s = max(state.max_time_s or 0.0 for state in self._progress.states if state.job in jobs)
        least_s = (LEAST_SHARE if self.total.is_measured else COMPARABLE_SHARE) * planned_s
        time_s = max(SHORTEST_S, least_s, min(before_s, fitting_s))
        if self.total.is_measured:
            spare_s = self.total.fitting_s(states, self._kept, has_reserve=True)
            time_s = max(time_s, min(spare_s, min(self._begun_s(), default=planned_s) / COMPARABLE_SHARE))
        time_s = float(int(time_s))
        if time_s == float(int(before_s)):
            return
        for job in jobs:
            self._progress.limit(job, time_s)
        if time_s > before_s:
            text = "%s %s instead of %s: preparing and scoring have left time"
            log.info(text, who, format_duration(time_s), format_duration(before_s))
        else:
            self._log_shortened(who, time_s, before_s, fitting_s)

    def _log_shortened(self, who: str, time_s: float, before_s: float, fitting_s: float) -> None:
        assert self.total is not None
        level = logging.INFO if time_s >= UNCHANGED_SHARE * before_s else logging.WARNING
        missing = "; --total-time will be exceeded" if time_s > fitting_s + 1 and self.total.is_measured else ""
        log.log(
            level,
            "%s %s instead of %s: preparing, scoring and selecting take longer than expected%s",
            who,
            format_duration(time_s),
            format_duration(before_s),
            missing,
        )

    def _fitting_s(self, states: Sequence[JobState]) -> float:
        assert self.total is not None
        return self.total.fitting_s(states, self._kept)

    def _states_without_others(self, name: Configuration, planned_s: float) -> Sequence[JobState]:
        """Return the states of all jobs, without those of configurations that would be left out later."""
        states = self._progress.states
        others = [other for other in self._not_begun() if other != name] if self._may_leave_out else []
        while self._fitting_s(states) < COMPARABLE_SHARE * planned_s and others:
            left_out = others.pop()
            states = tuple(state for state in states if state.job.configuration != left_out)
        return states

    def _make_room(self, planned_s: float) -> None:
        """Leave out the last configurations that have not begun, until enough time is left for each training.

        Nothing is left out before the scoring of a fold was measured, and one configuration always stays.
        """
        assert self.total is not None
        while (fitting_s := self._fitting_s(self._progress.states)) < COMPARABLE_SHARE * planned_s:
            names = self._not_begun()
            if not (self._may_leave_out and self.total.is_measured and names and len(self._names()) > 1):
                return
            self._progress.leave_out(names[-1])
            log.warning(
                "%s is left out: preparing, scoring and selecting take longer than expected, and leave %s instead of "
                "%s for each training",
                names[-1],
                format_duration(max(fitting_s, 0.0)),
                format_duration(planned_s),
            )

    def _begun_s(self) -> Sequence[float]:
        """Return the times of the trainings that have begun, seconds."""
        begun = [s for s in self._progress.states if s.status != "waiting" or s.job in self._kept]
        return [s.max_time_s for s in begun if s.max_time_s is not None]

    def _names(self) -> list[Configuration]:
        return list(dict.fromkeys(state.job.configuration for state in self._progress.states))

    def _not_begun(self) -> list[Configuration]:
        begun = {s.job.configuration for s in self._progress.states if s.status != "waiting" or s.job in self._kept}
        return [name for name in self._names() if name not in begun]
