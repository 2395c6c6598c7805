"""Divide the time among configurations: what each would be trained with in its share, and which are worth it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from decathlete.core.choices import Configuration
from decathlete.core.durations import format_duration
from decathlete.planning.adaptation import adapt_plan, steps_after_adaptation, training_steps
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.configurations import (
    ConfigurationOffer,
    describe_coverage,
    dims_of,
    why_low_resolution_adds_nothing,
)
from decathlete.planning.overrides import with_batch_size
from decathlete.planning.plan import Plan
from decathlete.training.config import TrainConfig
from decathlete.training.pretrained import network_replacement
from decathlete.workflows.budget import budget_of_folds
from decathlete.workflows.checked_dataset import CheckedDataset
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.scoring_time import expected_case_seconds, expected_fold_seconds
from decathlete.workflows.total_time import OtherWork
from decathlete.workflows.training_jobs import FIRST_STAGE, Job, leave_out, list_jobs, training_time

WORTHWHILE_STEPS = 100
"""Fewest steps of a configuration that ``auto`` trains: about half of what can be learned is learned in them
(:mod:`decathlete.planning.learning_curve`)."""
PASSES, TOLERANCE = 5, 0.1
"""How often a share of the time is tried, and how exactly it is found (share of itself): a longer training has a finer
grid, on which scoring takes more of the time."""


@dataclass(frozen=True, kw_only=True)
class TimedPlan:
    """What a configuration is trained with in a given time.

    Attributes:
        plan: as it is trained: on the grid for this time, adapted to it.
        steps: estimated number of training steps.
        case_s: expected seconds to predict and score a case by one network.
    """

    plan: Plan
    steps: int
    case_s: float


@dataclass(frozen=True, kw_only=True)
class Shares:
    """The shares of several configurations.

    Attributes:
        time_s: of each training, seconds. Trainings of earlier commands keep their own.
        plans: configuration -> what it is trained with.
        other: estimates of scoring and selecting these configurations.
    """

    time_s: float
    plans: Mapping[Configuration, TimedPlan]
    other: OtherWork


@dataclass(frozen=True, kw_only=True)
class SharePlanner:
    """Plans configurations for their shares of the time.

    Attributes:
        folds: numbers of the folds.
        plan_in: returns the plan by which a configuration is prepared for trainings of so many seconds.
        config_of: returns the settings of trainings in 2 or 3 dimensions.
        total_time_s: time of everything, seconds; ``None``: each training takes the time in its settings.
        max_members: greatest number of networks of the selected model.
        started: returns those of the given jobs that were started before, and their times.
        spent_s: returns the seconds that this command has taken.
    """

    pipeline: FoldPipeline
    dataset: CheckedDataset
    folds: tuple[int, ...]
    plan_in: Callable[[Configuration, float], Plan]
    config_of: Callable[[int], TrainConfig]
    total_time_s: float | None
    max_members: int
    started: Callable[[Sequence[Job]], Mapping[Job, float]]
    spent_s: Callable[[], float] = lambda: 0.0
    _found: dict[tuple[Configuration, ...], Shares] = field(default_factory=dict, init=False)
    _networks: dict[Configuration, Callable[[Plan], Plan]] = field(default_factory=dict, init=False)
    _budgets: dict[Configuration, ComputeBudget] = field(default_factory=dict, init=False)

    def jobs(self, names: Sequence[Configuration]) -> list[Job]:
        """Return every training of these configurations."""
        return list_jobs(names, self.folds, n_folds=self.dataset.n_folds)

    def shares(self, names: Sequence[Configuration]) -> Shares | None:
        """Return the shares if these configurations are trained; ``None``: the time is not limited."""
        names = tuple(names)
        if names not in self._found:
            if self.total_time_s is not None:
                self._found[names] = self._divide(names, self.total_time_s)
            elif (max_time_s := self.config_of(3).max_time_s) is not None:
                self._found[names] = self._plan(names, max_time_s)
        return self._found.get(names)

    def _divide(self, names: Sequence[Configuration], total_s: float) -> Shares:
        """Return the longest shares that leave enough time for scoring and selecting.

        Plans for a longer training mostly take longer to score. So the time that fits beside the plans for a shorter
        one is an upper bound, and the time beside those for a longer one is tried next.
        """
        jobs = self.jobs(names)

        def fitting_s(other_s: float) -> float:
            return training_time(total_s, other_s=self.spent_s() + other_s) / len(jobs)

        found, found_s, high_s, time_s = None, 0.0, math.inf, fitting_s(0.0)
        for _ in range(PASSES):
            shares = self._plan(names, time_s)
            left_s = fitting_s(shares.other.total_s([job.configuration for job in jobs]))
            if left_s >= time_s:
                found, found_s, high_s = shares, time_s, min(high_s, left_s)
                time_s = (found_s + high_s) / 2
            else:
                high_s = time_s
                time_s = left_s if left_s > found_s else (found_s + high_s) / 2
            if found is not None and high_s - found_s <= TOLERANCE * high_s:
                break
        return found or shares

    def _plan(self, names: Sequence[Configuration], time_s: float) -> Shares:
        kept: dict[Configuration, float] = {}
        for job, kept_s in self.started(self.jobs(names)).items():
            kept[job.configuration] = max(kept_s, kept.get(job.configuration, 0.0))
        plans = {name: self._timed_plan(name, kept.get(name, time_s)) for name in names}
        return Shares(time_s=time_s, plans=plans, other=self.other_work(plans))

    def _timed_plan(self, name: Configuration, time_s: float) -> TimedPlan:
        pipeline, config = self.pipeline, self.config_of(dims_of(name)).revised(max_time_s=time_s)
        prepared = with_batch_size(self.plan_in(name, time_s), config.batch_size)
        if name not in self._networks:  # once, since a model is read, and a worker of an executor answers
            self._networks[name] = network_replacement(config, prepared)
            network = self._networks[name](prepared).network
            self._budgets[name] = budget_of_folds(
                config, network, workers=pipeline.workers, fold_resources=pipeline.fold_resources
            )
        prepared = self._networks[name](prepared)
        budget = replace(self._budgets[name], max_time_s=time_s)
        if pipeline.adapt:
            n_cases = len(self.dataset.fingerprint.cases)
            trained = adapt_plan(prepared, budget, n_cases=n_cases, warn=False)
            n_steps = steps_after_adaptation(prepared, budget, n_cases=n_cases)
        else:
            trained, n_steps = prepared, training_steps(prepared, budget)
        n_voxels = median(math.prod(case.shape) for case in self.dataset.fingerprint.cases)
        return TimedPlan(
            plan=trained,
            steps=n_steps,
            case_s=expected_case_seconds(trained, budget, pipeline.predict_options.window, n_voxels=n_voxels),
        )

    def other_work(self, plans: Mapping[Configuration, TimedPlan]) -> OtherWork:
        """Return estimates of scoring and selecting configurations; without plans, only from what is measured later."""
        held_out = self.dataset.held_out_per_fold(self.folds)
        if not isinstance(self.pipeline.workers, int):  # an executor runs folds and cases at once
            plans = {}
        expected = {name: expected_fold_seconds(timed.case_s, held_out) for name, timed in plans.items()}
        for name, first in FIRST_STAGE.items():  # the first stage predicts the same cases again
            if name in expected:
                expected[name] += expected.get(first, 0.0)
        return OtherWork(
            expected_s=expected,
            n_folds=len(self.folds),
            has_pairs=self.max_members > 1,
            tests_per_held_out=len(self.dataset.spec.test_cases) / max(held_out, 1.0),
        )


def leave_out_by_time(
    offers: Sequence[ConfigurationOffer],
    *,
    shares_of: Callable[[Sequence[Configuration]], Shares | None],
    started: Collection[Configuration],
    min_steps: int = WORTHWHILE_STEPS,
) -> tuple[ConfigurationOffer, ...]:
    """Return the offers without those that are not worth their share of the time.

    These are a low resolution (with its cascade) that adds nothing to full resolution on the grid for its share, and
    the configuration with the fewest steps, if they are fewer than ``min_steps``. The time of what is left out is
    divided among the others, for which the plans are made again. The last configuration is always kept.

    Args:
        shares_of: returns the shares if these configurations are trained; ``None``: the time is not limited.
        started: configurations with trainings of an earlier command, which are kept.
    """
    offers = tuple(offers)
    while len(kept := [offer for offer in offers if offer.offered]) > 1:
        shares = shares_of([offer.name for offer in kept])
        if shares is None:
            return offers
        open_names = [offer.name for offer in kept if offer.name not in started]
        reasons = _similar(kept, shares, open_names) or _too_short(offers, shares, open_names, min_steps)
        if not reasons:
            return _explain_low_resolution(offers, shares)
        offers = leave_out(offers, reasons)
    return offers


def _similar(
    kept: Sequence[ConfigurationOffer], shares: Shares, open_names: Sequence[Configuration]
) -> dict[Configuration, str]:
    if "3d" not in shares.plans or "3d_lowres" not in open_names:
        return {}
    (low,) = (offer.plan for offer in kept if offer.name == "3d_lowres")
    assert low is not None  # for the type checker: it is offered
    reason = why_low_resolution_adds_nothing(shares.plans["3d"].plan, low)
    return {} if reason is None else {"3d_lowres": f"in {format_duration(shares.time_s)} for each training, {reason}"}


def _too_short(
    offers: Sequence[ConfigurationOffer], shares: Shares, open_names: Sequence[Configuration], min_steps: int
) -> dict[Configuration, str]:
    steps = {name: shares.plans[name].steps for name in open_names}
    name = min(reversed(steps), key=steps.__getitem__, default=None)
    if name is None or steps[name] >= min_steps:
        return {}
    reason = (
        f"the time is too short: {format_duration(shares.time_s)} for each training are about {steps[name]} steps, "
        f"fewer than {min_steps}"
    )
    if any(offer.offered for offer in leave_out(offers, {name: reason})):
        return {name: reason}
    return {other: reason for other in shares.plans if other != name}  # a first stage is kept rather than nothing


def _explain_low_resolution(offers: Sequence[ConfigurationOffer], shares: Shares) -> tuple[ConfigurationOffer, ...]:
    """Return the offers with the reason for a low resolution by what is trained in this time."""
    if not {"3d", "3d_lowres"} <= shares.plans.keys():
        return tuple(offers)
    full, low = (describe_coverage(shares.plans[name].plan) for name in ("3d", "3d_lowres"))
    reason = f"in {format_duration(shares.time_s)} for each training, {full}, and {low}"
    return tuple(replace(offer, reason=reason) if offer.name == "3d_lowres" else offer for offer in offers)
