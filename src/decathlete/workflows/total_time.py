"""Keep the total time of several trainings: what other work takes of it, and what is left for each training."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from pathlib import Path
from statistics import mean, median_low
from typing import Literal

from pydantic import Field

from decathlete.core.choices import Configuration
from decathlete.core.schema import Schema
from decathlete.errors import DecathleteError
from decathlete.workflows.training_jobs import TRAINING_SHARE, Job, JobState

TOTAL_TIME = "total_time.json"
"""File with the times of finished work, beside the configurations."""
RESERVE_OF_OTHER, RESERVE_OF_TOTAL = 0.1, 0.02
"""Time that longer trainings leave unused, since scoring and selecting may take longer than expected: shares of the
expected time of what is left of them, and of the total time."""
PAIR_SHARE = 0.7
"""Time of a pair, share of the time to score both configurations, since only its Dice is computed: prediction took 0.7
of that time on the hippocampus, 0.33 on DSB2018."""


class JobTime(Schema):
    """How long a job took, seconds."""

    training_s: float = Field(ge=0)
    scoring_s: float = Field(ge=0)


class TimeRecord(Schema):
    """Times of finished work, by which a repeated command knows what is left of the total time.

    Attributes:
        preparing: configuration -> seconds to plan and prepare its data.
        jobs: name of a finished job (``2d fold 0``) -> its time.
        plan_s: configuration -> training time that the plan of its folds was made for, seconds.
    """

    version: Literal[1] = 1
    preparing: dict[str, float] = {}
    jobs: dict[str, JobTime] = {}
    plan_s: dict[str, float] = {}


@dataclass(frozen=True, kw_only=True)
class OtherWork:
    """Estimates the time of scoring and selecting: by what was measured, before that by what was expected.

    Attributes:
        expected_s: configuration -> expected seconds to predict and score the held-out cases of one fold.
        n_folds: number of folds of each configuration that are compared.
        has_pairs: whether pairs of configurations are compared, too.
        tests_per_held_out: number of test images, divided by the number of held-out cases of a fold.
    """

    expected_s: Mapping[Configuration, float]
    n_folds: int
    has_pairs: bool = True
    tests_per_held_out: float = 0.0

    def scoring_s(
        self, measured: Mapping[Configuration, Sequence[float]], *, is_cautious: bool = False
    ) -> dict[Configuration, float]:
        """Return the seconds to score one fold of each configuration.

        Configurations that were not measured are expected to deviate from the expectation as the measured ones do.

        Args:
            is_cautious: expect no less than the last measured time. Earlier ones may be of a machine that was busier.
        """
        typical = {name: self._typical_s(name, times) for name, times in measured.items() if times}
        if is_cautious:
            typical = {name: max(seconds, measured[name][-1]) for name, seconds in typical.items()}
        expected_s = sum(self.expected_s.get(name, 0.0) for name in typical)
        factor = sum(typical.values()) / expected_s if expected_s else 1.0
        return {name: typical.get(name, factor * seconds) for name, seconds in self.expected_s.items()} | typical

    def _typical_s(self, name: Configuration, times: Sequence[float]) -> float:
        """Return the seconds that scoring one fold takes, from measured ones.

        The first fold also takes the time in which libraries are loaded, and another program may have slowed it down.
        By itself it counts as much as the expectation (their geometric mean); of two times, the lower one counts.
        """
        expected_s = self.expected_s.get(name, 0.0)
        return sqrt(times[0] * expected_s) if len(times) == 1 and expected_s else median_low(times)

    def selection_s(self, scoring_s: Mapping[Configuration, float], names: Collection[Configuration]) -> float:
        """Return the seconds to select one of the configurations ``names``.

        Both configurations of each pair predict every held-out case again. The cases of the selected model are scored
        with and without post-processing. The test images are predicted by all of its networks.
        """
        single = [scoring_s.get(name, 0.0) for name in names]
        pairs = [PAIR_SHARE * sum(pair) for pair in combinations(single, 2)] if self.has_pairs else []
        dearest = max([*single, *pairs], default=0.0)
        return self.n_folds * (sum(pairs) + max(single, default=0.0) + self.tests_per_held_out * dearest)

    def selection_after(self, states: Sequence[JobState]) -> float:
        """Return the expected seconds to select after these jobs, by those that are scored; 0 if one has failed."""
        if any(state.status == "failed" for state in states):
            return 0.0
        measured: dict[Configuration, list[float]] = {}
        for state in states:
            if state.total_s is not None:
                measured.setdefault(state.job.configuration, []).append(state.total_s - state.training_s)
        names = dict.fromkeys(state.job.configuration for state in states)
        return self.selection_s(self.scoring_s(measured), names)

    def total_s(self, names: Sequence[Configuration]) -> float:
        """Return the expected seconds to score jobs and to select.

        Args:
            names: the configuration of each job.
        """
        return sum(self.expected_s.get(name, 0.0) for name in names) + self.selection_s(self.expected_s, set(names))


class TotalTime:
    """The total time of one command and of those before it that it resumes.

    Args:
        total_s: the total time, seconds.
        other: estimates the time of scoring and selecting.
        folder: folder of the configurations' results; the times of finished work are stored there.
        forget: do not read the times of earlier commands, since their results are replaced.
        clock: returns the current time, seconds.
        began_s: time at which this command began.
    """

    def __init__(
        self,
        total_s: float,
        other: OtherWork,
        folder: Path,
        *,
        forget: bool = False,
        clock: Callable[[], float] = time.monotonic,
        began_s: float | None = None,
    ) -> None:
        self.total_s = total_s
        self._other = other
        self._file = folder / TOTAL_TIME
        self._clock = clock
        self._began_s = clock() if began_s is None else began_s
        self._earlier = TimeRecord() if forget else _load(self._file)
        self._record = self._earlier

    def other_s(self, states: Sequence[JobState], *, is_cautious: bool = False) -> float:
        """Return the expected seconds of everything but the trainings that are open.

        Args:
            is_cautious: see :meth:`OtherWork.scoring_s`.
        """
        names = list(dict.fromkeys(state.job.configuration for state in states))
        scoring_s = self._other.scoring_s(self._measured(), is_cautious=is_cautious)
        open_jobs = [state.job for state in states if state.is_open]
        known = self._record.preparing
        unprepared = {job.configuration for job in open_jobs} - set(known)
        preparing_s = len(unprepared) * mean(known.values()) if known else 0.0
        scoring = sum(scoring_s.get(job.configuration, 0.0) for job in open_jobs)
        return preparing_s + scoring + self._other.selection_s(scoring_s, names)

    def left_s(self, states: Sequence[JobState], kept: Mapping[Job, float]) -> float:
        """Return the seconds that are left, without those that earlier commands took.

        Args:
            kept: see :meth:`fitting_s`.
        """
        earlier_s = sum(self._earlier.preparing.values())
        for state in states:
            if state.status == "finished" and state.total_s is None:
                earlier_s += self._finished_s(state)
            elif state.status == "finished" and state.job in kept:  # resumed
                earlier_s += max(kept[state.job] - state.training_s, 0.0)
        return self.total_s - earlier_s - (self._clock() - self._began_s)

    def fitting_s(self, states: Sequence[JobState], kept: Mapping[Job, float], *, has_reserve: bool = False) -> float:
        """Return the seconds that are left for each training that has not begun; they may be negative.

        Args:
            kept: job -> time of the trainings that earlier commands have begun. An open one gets all of it.
            has_reserve: leave a reserve for work that takes longer than expected, and expect it with caution.
        """
        open_jobs = [state.job for state in states if state.is_open]
        resumed_s = sum(kept[job] for job in open_jobs if job in kept)
        n_new = sum(job not in kept for job in open_jobs)
        other_s = self.other_s(states, is_cautious=has_reserve)
        reserve_s = RESERVE_OF_OTHER * other_s + RESERVE_OF_TOTAL * self.total_s if has_reserve else 0.0
        return (self.left_s(states, kept) - other_s - reserve_s - resumed_s) / max(n_new, 1)

    def add_preparing(self, name: Configuration, seconds: float) -> None:
        """Add and store the time of preparing a configuration; what is prepared already takes hardly any."""
        longest_s = max(seconds, self._record.preparing.get(name, 0.0))
        self._record = self._record.revised(preparing=self._record.preparing | {name: longest_s})
        self._record.save(self._file)

    def plan_time(self, name: Configuration, planned_s: float, *, is_begun: bool) -> float:
        """Return the training time that the plan of a configuration is made for, so that its folds have one plan.

        Args:
            planned_s: what it is now.
            is_begun: whether an earlier command has begun a fold, whose plan is kept.
        """
        if is_begun and name in self._record.plan_s:
            return self._record.plan_s[name]
        self._record = self._record.revised(plan_s=self._record.plan_s | {name: planned_s})
        self._record.save(self._file)
        return planned_s

    def add_job(self, state: JobState, *, is_resumed: bool) -> None:
        """Add and store the time of a job that this command has finished.

        Args:
            is_resumed: whether an earlier command has begun it.
        """
        if state.total_s is None or state.max_time_s is None:
            return
        # A time limit includes what follows the last step: a validation, and writing the model.
        training_s = state.training_s if is_resumed else max(state.training_s, state.max_time_s)
        spent = JobTime(training_s=state.max_time_s, scoring_s=max(state.total_s - training_s, 0.0))
        self._record = self._record.revised(jobs=self._record.jobs | {str(state.job): spent})
        self._record.save(self._file)

    @property
    def is_measured(self) -> bool:
        """Whether the scoring of a fold was measured, or everything is only expected."""
        return bool(self._record.jobs)

    def _measured(self) -> dict[Configuration, list[float]]:
        measured: dict[Configuration, list[float]] = {name: [] for name in self._other.expected_s}
        for job, spent in self._record.jobs.items():
            for name in measured:
                if job.split(" ")[0] == name:
                    measured[name].append(spent.scoring_s)
        return measured

    def _finished_s(self, state: JobState) -> float:
        spent = self._earlier.jobs.get(str(state.job))
        if spent is None:  # finished by another command, or its scores were interrupted
            return (state.max_time_s or 0.0) / TRAINING_SHARE
        return spent.training_s + spent.scoring_s


def _load(file: Path) -> TimeRecord:
    with suppress(DecathleteError):  # absent or damaged: times are estimated
        return TimeRecord.load(file)
    return TimeRecord()
