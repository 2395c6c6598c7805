"""The trainings of several configurations: which there are, how long each may take, and how far they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from decathlete.core.choices import Configuration
from decathlete.core.durations import format_duration
from decathlete.errors import OptionError
from decathlete.planning.configurations import CONFIGURATIONS, ConfigurationOffer
from decathlete.workflows.folds import format_folds

AUTO = "auto"
FIRST_STAGE: dict[Configuration, Configuration] = {"3d_cascade": "3d_lowres"}
"""Configurations that need another one: every fold of it must be trained before."""
TRAINING_SHARE = 0.85
"""Largest share of the total time that is divided among the trainings."""
LEAST_TRAINING_SHARE = 0.25
"""Smallest share, even if scoring and selecting are expected to take longer than the rest."""
COMPARABLE_SHARE = 0.5
"""Configurations are compared only if no training takes less than this share of the longest one."""
SHORTEST_S = 1.0
"""Shortest training, seconds."""
JobStatus = Literal["waiting", "running", "training", "scoring", "finished", "failed"]
"""``running``: a worker of an executor trains and scores the job, and does not report how far it is."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The training of one fold of one configuration."""

    configuration: Configuration
    fold: int

    def __str__(self) -> str:
        """Return the job in words, for example ``3d_lowres fold 2``."""
        return f"{self.configuration} fold {self.fold}"


@dataclass(frozen=True, kw_only=True)
class JobState:
    """How far a job is.

    Attributes:
        share: share of the training that is done, 0..1.
        max_time_s: training time; ``None``: it ends after a number of epochs.
        expected_scoring_s: seconds that its scores are expected to take.
        dice: mean Dice of the held-out cases, once they are scored.
        training_s: seconds of this training so far, in this command; of a ``running`` job, those since it began.
        total_s: seconds from its start to its scores, in this command; ``None``: not finished in this command.
    """

    job: Job
    status: JobStatus = "waiting"
    share: float = 0.0
    max_time_s: float | None = None
    expected_scoring_s: float = 0.0
    dice: float | None = None
    training_s: float = 0.0
    total_s: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is something left to do."""
        return self.status not in ("finished", "failed")


def parse_configurations(names: str | Sequence[str]) -> tuple[Configuration, ...]:
    """Return the named configurations in the order in which they are trained; of ``"auto"``, none.

    A first stage that a configuration needs is added.

    >>> parse_configurations("3d_cascade,2d")
    ('2d', '3d_lowres', '3d_cascade')

    Raises:
        OptionError: an unknown name, or none.
    """
    given = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    if given == [AUTO]:
        return ()
    if unknown := [name for name in given if name not in CONFIGURATIONS]:
        raise OptionError(
            f"there is no configuration called {', '.join(map(repr, unknown))}",
            remedy=f"choose among {', '.join(CONFIGURATIONS)}, or auto",
        )
    wanted = {*given, *(FIRST_STAGE[name] for name in CONFIGURATIONS if name in given and name in FIRST_STAGE)}
    return tuple(name for name in CONFIGURATIONS if name in wanted)


def list_jobs(configurations: Sequence[Configuration], folds: Sequence[int], *, n_folds: int) -> list[Job]:
    """Return every training in the order in which they run; a first stage is trained on all ``n_folds`` folds.

    >>> [str(job) for job in list_jobs(["3d_lowres", "3d_cascade"], [1], n_folds=2)]
    ['3d_lowres fold 0', '3d_lowres fold 1', '3d_cascade fold 1']
    """
    stages = {FIRST_STAGE[name] for name in configurations if name in FIRST_STAGE}
    return [
        Job(configuration=name, fold=fold)
        for name in configurations
        for fold in (range(n_folds) if name in stages else folds)
    ]


def describe_jobs(jobs: Sequence[Job]) -> str:
    """Return the folds of each configuration.

    >>> describe_jobs(list_jobs(["2d", "3d"], [0, 1, 3], n_folds=5))
    '2d folds 0-1,3; 3d folds 0-1,3'
    """
    by_name: dict[str, list[int]] = {}
    for job in jobs:
        by_name.setdefault(job.configuration, []).append(job.fold)
    return "; ".join(
        f"{name} {'fold' if len(folds) == 1 else 'folds'} {format_folds(folds)}" for name, folds in by_name.items()
    )


def leave_out(
    offers: Sequence[ConfigurationOffer], reasons: Mapping[Configuration, str]
) -> tuple[ConfigurationOffer, ...]:
    """Return the offers without some configurations, and without second stages whose first stage is left out.

    Args:
        reasons: configuration -> why it is left out.
    """
    reasons = dict(reasons)
    for second, first in FIRST_STAGE.items():
        if first in reasons:
            reasons.setdefault(second, f"its first stage is left out: {reasons[first]}")
    return tuple(
        replace(offer, offered=False, reason=reasons[offer.name]) if offer.offered and offer.name in reasons else offer
        for offer in offers
    )


def divide_time(
    total_s: float, kept: Mapping[Job, float], jobs: Sequence[Job], *, other_s: float = 0.0
) -> dict[Job, float]:
    """Return the training time of each job, seconds: equal shares of the total time without that of other work.

    The trainings get at most :data:`TRAINING_SHARE` and at least :data:`LEAST_TRAINING_SHARE` of the total time.
    Trainings that were started keep their time, so that a command that is repeated resumes them; what is left is
    divided among the others, each of which gets a comparable share (:data:`COMPARABLE_SHARE` of equal ones) if the
    total time allows it: those before may have used what other work left. Further folds of a configuration get no more
    time than those that were started: the plan depends on it.

    >>> jobs = [Job(configuration="3d", fold=fold) for fold in range(5)]
    >>> divide_time(1000, {}, jobs)[jobs[0]]
    170.0
    >>> divide_time(1000, {}, jobs, other_s=400)[jobs[0]]
    120.0
    >>> divide_time(1000, {jobs[0]: 250}, jobs)[jobs[1]]
    150.0
    >>> divide_time(1000, dict.fromkeys(jobs[:4], 200), jobs)[jobs[4]]
    85.0

    Args:
        kept: time of the jobs that were started before.
        other_s: expected time of preparing, scoring and selecting, seconds.

    Raises:
        OptionError: no time is left for the others.
    """
    share_s = training_time(total_s, other_s=other_s)
    open_jobs = [job for job in jobs if job not in kept]
    equal_s = float(int(share_s / len(jobs)))
    if any(time_s != equal_s for time_s in kept.values()) and open_jobs:
        kept_s = sum(kept[job] for job in jobs if job in kept)
        comparable_s = min(COMPARABLE_SHARE * equal_s, (total_s - kept_s) / len(open_jobs))
        equal_s = float(int(max((share_s - kept_s) / len(open_jobs), comparable_s)))
    if open_jobs and equal_s < SHORTEST_S:
        raise OptionError(
            f"--total-time {format_duration(total_s)} leaves no time for {len(open_jobs)} of {len(jobs)} trainings",
            remedy="use a longer --total-time, fewer --folds or fewer --configurations",
        )
    limits: dict[Configuration, float] = {}
    for job, time_s in kept.items():  # the first folds of a configuration have got the time that its plan is made for
        limits[job.configuration] = max(time_s, limits.get(job.configuration, time_s))
    return {job: kept.get(job, min(equal_s, limits.get(job.configuration, equal_s))) for job in jobs}


def training_time(total_s: float, *, other_s: float = 0.0) -> float:
    """Return the part of the total time that is divided among the trainings, seconds.

    >>> [training_time(100, other_s=other_s) for other_s in (0, 40, 90)]
    [85.0, 60, 25.0]
    """
    return min(TRAINING_SHARE * total_s, max(total_s - other_s, LEAST_TRAINING_SHARE * total_s))


def time_left(states: Sequence[JobState], *, at_once: int = 1) -> float | None:
    """Estimate the seconds until the last job is finished; ``None``: not known yet.

    A training with a time limit takes the rest of that time; another one is estimated by those of its configuration
    that are finished, or by its own progress. What follows a training takes as long as it did for finished jobs, or
    before the first of them as long as expected. One configuration is trained after the other.

    Args:
        at_once: number of jobs of a configuration that run at the same time.
    """
    after_s = [state.total_s - state.training_s for state in states if state.total_s is not None]
    measured_s = sum(after_s) / len(after_s) if after_s else None
    left_s: dict[Configuration, list[float]] = {}
    for state in states:
        if not state.is_open:
            continue
        training_s = _training_time(state, states)
        if training_s is None:
            return None
        scoring_s = state.expected_scoring_s if measured_s is None else measured_s
        done_s = state.training_s if state.status == "running" else training_s * state.share
        left_s.setdefault(state.job.configuration, []).append(max(training_s + scoring_s - done_s, 0.0))
    return sum(max(max(of_jobs), sum(of_jobs) / at_once) for of_jobs in left_s.values())


def _training_time(state: JobState, states: Sequence[JobState]) -> float | None:
    if state.max_time_s is not None:
        return state.max_time_s
    if state.share > 0:
        return state.training_s / state.share
    same = [
        other.training_s / other.share
        for other in states
        if other.job.configuration == state.job.configuration and other.share > 0 and other.training_s > 0
    ]
    return sum(same) / len(same) if same else None
