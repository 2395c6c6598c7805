"""Choose the configurations to train: those that the user names, or those that images and time justify."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from decathlete.core.choices import Configuration
from decathlete.core.durations import format_duration
from decathlete.errors import ModelError, OptionError
from decathlete.planning.configurations import ConfigurationOffer, check_stages, why_low_resolution_adds_nothing
from decathlete.planning.plan import Plan
from decathlete.planning.trained_network import sets_network
from decathlete.training.config import TrainConfig
from decathlete.training.pretrained import check_pretrained
from decathlete.training.weight_matching import input_names
from decathlete.workflows.cascade import require_held_out
from decathlete.workflows.checked_dataset import CheckedDataset
from decathlete.workflows.time_shares import WORTHWHILE_STEPS, SharePlanner, leave_out_by_time
from decathlete.workflows.training_jobs import FIRST_STAGE, leave_out

log = logging.getLogger(__name__)

CASCADE_NETWORKS = 2
"""Number of networks of a cascade's fold: those of both stages."""


@dataclass(frozen=True, kw_only=True)
class ConfigurationChooser:
    """Chooses configurations for the folds of a dataset.

    Attributes:
        plan_of: returns the plan of a configuration by the rules, whatever the time.
        config_of: returns the settings of trainings in 2 or 3 dimensions.
        planner: plans configurations for their shares of the time.
    """

    dataset: CheckedDataset
    plan_of: Callable[[Configuration], Plan]
    config_of: Callable[[int], TrainConfig]
    planner: SharePlanner

    def choose(self, named: Sequence[Configuration]) -> tuple[Configuration, ...]:
        """Return the named configurations, or without names those that images and time justify; log why.

        Raises:
            OptionError: as of :func:`~decathlete.planning.overrides.plan_with`, before anything is trained.
            PlanError: the images do not justify a named configuration, or the user set one grid for both resolutions.
            ModelError: a cascade is named, and the folds do not hold out every case; or the pretrained model has no
                network like those of a named configuration, or of any.
            OutputError: configurations were prepared with different classes or regions.
        """
        if named:
            self.dataset.folds.check_labels(plans := {name: self.plan_of(name) for name in named})
            self._check_stages(plans)
            for name, plan in plans.items():
                self._check_pretrained(name, plan)
            if "3d_cascade" in named:
                require_held_out(self.dataset.splits, self.dataset.case_ids, where=self.dataset.spec.root)
            self._warn_of_similar(plans)
            return tuple(named)
        offers = self._without_large_models(self.dataset.offers_with_predictions())
        offers = self._without_other_networks(offers)
        offers = self._leave_out(offers)
        for offer in offers:
            log.info("%s is %s: %s", offer.name, "trained" if offer.offered else "not trained", offer.reason)
        plans = {offer.name: offer.plan for offer in offers if offer.offered and offer.plan is not None}
        self.dataset.folds.check_labels(plans)
        return tuple(plans)

    def _check_stages(self, plans: Mapping[Configuration, Plan]) -> None:
        """Check that a named low resolution is coarser than full resolution.

        Raises:
            PlanError: it is not, since the user set its grid.
        """
        used = {name: self.dataset.folds.plan_in_use(name, plan) for name, plan in plans.items()}
        for name, full in used.items():
            if "3d_lowres" in used and name in ("3d", "3d_cascade"):
                check_stages(used["3d_lowres"], full)

    def _warn_of_similar(self, plans: Mapping[Configuration, Plan]) -> None:
        """Warn about a low resolution that the user named, and that adds nothing to full resolution in this time."""
        full = next((name for name in plans if name in ("3d", "3d_cascade")), None)
        shares = self.planner.shares(tuple(plans)) if full is not None and "3d_lowres" in plans else None
        if full is None or shares is None:
            return
        reason = why_low_resolution_adds_nothing(shares.plans[full].plan, plans["3d_lowres"])
        if reason is not None:
            log.warning(
                "3d_lowres is trained, since it was named, but probably adds nothing: in %s for each training, %s",
                format_duration(shares.time_s),
                reason,
            )

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

    def _without_large_models(self, offers: Sequence[ConfigurationOffer]) -> tuple[ConfigurationOffer, ...]:
        """Return the offers without the cascade if no model of it has few enough networks to be selected."""
        if self.planner.max_members >= CASCADE_NETWORKS:
            return tuple(offers)
        reason = f"it has {CASCADE_NETWORKS} networks, and --max-members is {self.planner.max_members}"
        return leave_out(offers, dict.fromkeys(FIRST_STAGE, reason))

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

    def _leave_out(self, offers: Sequence[ConfigurationOffer]) -> tuple[ConfigurationOffer, ...]:
        """Return the offers without configurations that are not worth their share of the time, if it is limited."""
        names = [offer.name for offer in offers if offer.offered]
        return leave_out_by_time(
            offers,
            shares_of=self.planner.shares,
            started={job.configuration for job in self.planner.started(self.planner.jobs(names))},
            min_steps=0 if self.planner.total_time_s is None else WORTHWHILE_STEPS,
        )
