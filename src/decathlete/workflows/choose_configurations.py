"""Choose the configurations to train: those that the user names, or those that images and time justify."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from decathlete.core.choices import Configuration
from decathlete.core.locks import locked_folder
from decathlete.dataset.given_splits import count_cases
from decathlete.dataset.spec import DatasetSpec
from decathlete.dataset.splits import Splits
from decathlete.planning.adaptation import adapt_plan, steps_after_adaptation, training_steps
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.configurations import (
    ConfigurationOffer,
    offered_configurations,
    plan_configuration,
)
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.plan import Plan
from decathlete.training.config import TrainConfig
from decathlete.workflows.budget import budget_of_folds
from decathlete.workflows.cascade import require_held_out
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.prepared_configurations import AgreedFolds, agree_on_folds
from decathlete.workflows.preprocess import load_or_make_fingerprint, read_task
from decathlete.workflows.scoring_time import expected_case_seconds, expected_fold_seconds
from decathlete.workflows.total_time import OtherWork
from decathlete.workflows.training_jobs import (
    FIRST_STAGE,
    Job,
    leave_out_short_trainings,
    list_jobs,
    training_time,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CheckedDataset:
    """A dataset that was checked, and its folds.

    Attributes:
        offers: which configurations the images justify; empty: the user names them.
    """

    spec: DatasetSpec
    fingerprint: Fingerprint
    folds: AgreedFolds
    offers: tuple[ConfigurationOffer, ...] = ()

    @property
    def splits(self) -> Splits:
        """The folds of every configuration."""
        return self.folds.splits

    @property
    def n_folds(self) -> int:
        """Number of folds."""
        return len(self.splits.folds)

    @property
    def case_ids(self) -> list[str]:
        """All cases."""
        return [case.id for case in self.spec.cases]

    def held_out_per_fold(self, folds: Sequence[int]) -> float:
        """Return the mean number of held-out cases of ``folds``."""
        return sum(len(self.splits.folds[fold].val) for fold in folds) / max(len(folds), 1)


def check_and_split(pipeline: FoldPipeline, named: Sequence[Configuration]) -> CheckedDataset:
    """Check the dataset, and return it with its folds.

    Args:
        named: configurations that the user named; empty: those that the images justify.

    Raises:
        DatasetError: the check found errors.
        OutputError: configurations were prepared with different folds.
    """
    options = pipeline.plan_options
    spec = read_task(
        pipeline.task,
        workspace=pipeline.workspace,
        options=options,
        spacing=pipeline.spacing,
        image_formats=pipeline.image_formats,
    )
    pipeline.reporter.step("Check the dataset")
    folder = pipeline.workspace.prepared_folder(pipeline.task, 3).parent
    with locked_folder(folder, wait_for="checked the dataset of"):
        fingerprint = load_or_make_fingerprint(
            spec, folder, options.orientation, workers=pipeline.workers, progress=pipeline.reporter.cases("check")
        )
    offers = () if named else offered_configurations(spec, fingerprint, options=options)
    names = named or [offer.name for offer in offers if offer.offered]
    folds = agree_on_folds(pipeline, names, spec, fingerprint.presence(spec.labels))
    return CheckedDataset(spec=spec, fingerprint=fingerprint, folds=folds, offers=offers)


@dataclass(frozen=True, kw_only=True)
class ConfigurationChooser:
    """Chooses configurations for the folds of a dataset, and estimates the time to score them.

    Attributes:
        folds: numbers of the folds.
        config_of: returns the settings of trainings in 2 or 3 dimensions.
        total_time_s: time of everything, seconds; ``None``: not limited.
        max_members: greatest number of networks of the selected model.
        started: returns those of the given jobs that were started before, and their times.
    """

    pipeline: FoldPipeline
    dataset: CheckedDataset
    folds: tuple[int, ...]
    config_of: Callable[[int], TrainConfig]
    total_time_s: float | None
    max_members: int
    started: Callable[[Sequence[Job]], dict[Job, float]]

    def choose(self, named: Sequence[Configuration]) -> tuple[Configuration, ...]:
        """Return the named configurations, or without names those that images and time justify; log why.

        Raises:
            OptionError: as of :func:`~decathlete.planning.overrides.plan_with`, before anything is trained.
            PlanError: the images do not justify a named configuration.
            ModelError: a cascade is named, and the folds do not hold out every case.
            OutputError: configurations were prepared with different classes or regions.
        """
        if named:
            self.dataset.folds.check_labels({name: self._plan(name) for name in named})
            if "3d_cascade" in named:
                require_held_out(self.dataset.splits, self.dataset.case_ids, where=self.dataset.spec.root)
            return tuple(named)
        offers = _without_cascade_of_unseen_cases(self.dataset)
        if self.total_time_s is not None:
            offers = self._leave_out(offers, self.total_time_s)
        for offer in offers:
            log.info("%s is %s: %s", offer.name, "trained" if offer.offered else "not trained", offer.reason)
        plans = {offer.name: offer.plan for offer in offers if offer.offered and offer.plan is not None}
        self.dataset.folds.check_labels(plans)
        return tuple(plans)

    def other_work(self, names: Sequence[Configuration]) -> OtherWork:
        """Return the estimates for scoring and selecting these configurations."""
        return self._other_work({name: self._plan(name) for name in names})

    def _plan(self, name: Configuration) -> Plan:
        dataset = self.dataset
        return plan_configuration(dataset.spec, dataset.fingerprint, name, options=self.pipeline.plan_options)

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
        """Return the offers without configurations for which the time is too short."""
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

    def _budget(self, plan: Plan, time_s: float) -> ComputeBudget:
        pipeline, config = self.pipeline, self.config_of(plan.dims).revised(max_time_s=time_s)
        return budget_of_folds(config, plan.network, workers=pipeline.workers, fold_resources=pipeline.fold_resources)


def _without_cascade_of_unseen_cases(dataset: CheckedDataset) -> tuple[ConfigurationOffer, ...]:
    """Return the offers, without the cascade if its first stage could not predict every case without having seen it."""
    missing = dataset.splits.never_held_out(dataset.case_ids)
    reason = f"no fold holds out {count_cases(missing)}, so that a first stage has no prediction of them"
    return tuple(
        replace(offer, offered=False, reason=reason)
        if missing and offer.offered and offer.name in FIRST_STAGE
        else offer
        for offer in dataset.offers
    )
