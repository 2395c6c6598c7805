"""Choose the configurations to train: those that the user names, or those that images and time justify."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from decathlete.core.choices import Configuration
from decathlete.errors import ModelError, OptionError
from decathlete.planning.adaptation import adapt_plan, steps_after_adaptation, training_steps
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.configurations import ConfigurationOffer
from decathlete.planning.plan import Plan
from decathlete.planning.trained_network import sets_network
from decathlete.training.config import TrainConfig
from decathlete.training.pretrained import check_pretrained, network_replacement
from decathlete.training.weight_matching import input_names
from decathlete.workflows.budget import budget_of_folds
from decathlete.workflows.cascade import require_held_out
from decathlete.workflows.checked_dataset import CheckedDataset
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.scoring_time import expected_case_seconds, expected_fold_seconds
from decathlete.workflows.total_time import OtherWork
from decathlete.workflows.training_jobs import (
    FIRST_STAGE,
    Job,
    leave_out,
    leave_out_short_trainings,
    list_jobs,
    training_time,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConfigurationChooser:
    """Chooses configurations for the folds of a dataset, and estimates the time to score them.

    Attributes:
        folds: numbers of the folds.
        plan_of: returns the plan of a configuration.
        config_of: returns the settings of trainings in 2 or 3 dimensions.
        total_time_s: time of everything, seconds; ``None``: not limited.
        max_members: greatest number of networks of the selected model.
        started: returns those of the given jobs that were started before, and their times.
    """

    pipeline: FoldPipeline
    dataset: CheckedDataset
    folds: tuple[int, ...]
    plan_of: Callable[[Configuration], Plan]
    config_of: Callable[[int], TrainConfig]
    total_time_s: float | None
    max_members: int
    started: Callable[[Sequence[Job]], dict[Job, float]]

    def choose(self, named: Sequence[Configuration]) -> tuple[Configuration, ...]:
        """Return the named configurations, or without names those that images and time justify; log why.

        Raises:
            OptionError: as of :func:`~decathlete.planning.overrides.plan_with`, before anything is trained.
            PlanError: the images do not justify a named configuration.
            ModelError: a cascade is named, and the folds do not hold out every case; or the pretrained model has no
                network like those of a named configuration, or of any.
            OutputError: configurations were prepared with different classes or regions.
        """
        if named:
            self.dataset.folds.check_labels(plans := {name: self.plan_of(name) for name in named})
            for name, plan in plans.items():
                self._check_pretrained(name, plan)
            if "3d_cascade" in named:
                require_held_out(self.dataset.splits, self.dataset.case_ids, where=self.dataset.spec.root)
            return tuple(named)
        offers = self._without_other_networks(self.dataset.offers_with_predictions())
        if self.total_time_s is not None:
            offers = self._leave_out(offers, self.total_time_s)
        for offer in offers:
            log.info("%s is %s: %s", offer.name, "trained" if offer.offered else "not trained", offer.reason)
        plans = {offer.name: offer.plan for offer in offers if offer.offered and offer.plan is not None}
        self.dataset.folds.check_labels(plans)
        return tuple(plans)

    def other_work(self, names: Sequence[Configuration]) -> OtherWork:
        """Return the estimates for scoring and selecting these configurations."""
        return self._other_work({name: self._as_trained(self.plan_of(name)) for name in names})

    def _check_pretrained(self, name: Configuration, plan: Plan) -> None:
        """Check that the model that trainings start from has a network of the plan's kind.

        Raises:
            ModelError: it has none. OptionError: stages that are not to be trained do not fit it.
        """
        used = self.dataset.folds.plan_in_use(name, plan)
        check_pretrained(
            self.config_of(plan.dims),
            configuration=name,
            dims=used.dims,
            architecture=used.network.architecture,
            inputs=input_names(used),
            has_own_network=sets_network(used),
        )

    def _without_other_networks(self, offers: Sequence[ConfigurationOffer]) -> tuple[ConfigurationOffer, ...]:
        """Return the offers without those for which the pretrained model has no network, or not the frozen stages.

        Raises:
            ModelError, OptionError: there is none for any of them.
        """
        problems: dict[Configuration, ModelError | OptionError] = {}
        for offer in offers:
            if offer.offered and offer.plan is not None:
                try:
                    self._check_pretrained(offer.name, offer.plan)
                except (ModelError, OptionError) as problem:
                    problems[offer.name] = problem
        if problems and all(offer.name in problems for offer in offers if offer.offered):
            raise min(problems.values(), key=lambda problem: isinstance(problem, ModelError))  # of a fitting network
        reasons = {
            name: f"the pretrained model {problem.problem}" if isinstance(problem, ModelError) else problem.problem
            for name, problem in problems.items()
        }
        return leave_out(offers, reasons)

    def _other_work(self, plans: dict[Configuration, Plan]) -> OtherWork:
        held_out = self.dataset.held_out_per_fold(self.folds)
        if not isinstance(self.pipeline.workers, int):  # an executor runs folds and cases at once
            plans = {}
        expected = {
            name: expected_fold_seconds(self._case_seconds(plan, len(plans)), held_out) for name, plan in plans.items()
        }
        for name, first in FIRST_STAGE.items():  # the first stage predicts the same cases again
            if name in expected:
                expected[name] += expected.get(first, 0.0)
        return OtherWork(
            expected_s=expected,
            n_folds=len(self.folds),
            has_pairs=self.max_members > 1,
            tests_per_held_out=len(self.dataset.spec.test_cases) / max(held_out, 1.0),
        )

    def _case_seconds(self, plan: Plan, n_configurations: int) -> float:
        assert self.total_time_s is not None
        time_s = training_time(self.total_time_s) / (n_configurations * len(self.folds))
        budget = self._budget(plan, time_s)
        adapted = adapt_plan(plan, budget, warn=False) if self.pipeline.adapt else plan
        n_voxels = median(math.prod(case.shape) for case in self.dataset.fingerprint.cases)
        return expected_case_seconds(adapted, budget, self.pipeline.predict_options.window, n_voxels=n_voxels)

    def _leave_out(self, offers: Sequence[ConfigurationOffer], total_time_s: float) -> tuple[ConfigurationOffer, ...]:
        """Return the offers without configurations for which the time is too short.

        Steps and scoring are estimated for the networks that are trained.
        """
        offers = [
            replace(offer, plan=self._as_trained(offer.plan)) if offer.offered and offer.plan is not None else offer
            for offer in offers
        ]
        plans = {offer.name: offer.plan for offer in offers if offer.offered and offer.plan is not None}

        def jobs_of(names: Sequence[Configuration]) -> list[Job]:
            return list_jobs(names, self.folds, n_folds=self.dataset.n_folds)

        def time_of(names: Sequence[Configuration]) -> float:
            other = self._other_work({name: plans[name] for name in names})
            other_s = other.total_s([job.configuration for job in jobs_of(names)])
            return training_time(total_time_s, other_s=other_s) / len(jobs_of(names))

        def steps_of(plan: Plan, time_s: float) -> int:
            count = steps_after_adaptation if self.pipeline.adapt else training_steps
            return count(plan, self._budget(plan, time_s))

        started = {job.configuration for job in self.started(jobs_of(list(plans)))}
        return leave_out_short_trainings(offers, time_of=time_of, steps_of=steps_of, started=started)

    def _as_trained(self, plan: Plan) -> Plan:
        """Return a plan with the network that is trained: that of the pretrained model, if there is one."""
        return network_replacement(self.config_of(plan.dims), plan)(plan)

    def _budget(self, plan: Plan, time_s: float) -> ComputeBudget:
        pipeline, config = self.pipeline, self.config_of(plan.dims).revised(max_time_s=time_s)
        return budget_of_folds(config, plan.network, workers=pipeline.workers, fold_resources=pipeline.fold_resources)
