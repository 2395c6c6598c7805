"""The plan that a dataset is prepared by: by the rules or from a trained model, for a training time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from decathlete.core.choices import Configuration
from decathlete.core.parallel import Workers
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import DecathleteError, OptionError
from decathlete.planning.coarse_start_options import share_of_planned_start
from decathlete.planning.configurations import plan_configuration
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import override
from decathlete.planning.plan import Plan
from decathlete.planning.plan_from import plan_from as derive_plan

if TYPE_CHECKING:
    from decathlete.training.config import TrainConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SourcePlan:
    """The plan of a trained model, whose decisions are reused.

    Attributes:
        model: folder of the model.
    """

    plan: Plan
    model: Path

    @classmethod
    def read(cls, model: Path, configuration: Configuration, training: TrainConfig | None) -> SourcePlan:
        """Read the plan of a model.

        Raises:
            OptionError: the training time would choose another resolution.
            ModelError: there is no model, or it has no plan of the configuration.
        """
        if training is not None and training.max_time_s is not None:
            raise OptionError(
                "--plan-from reuses the resolution of a model, and --max-time would choose another",
                remedy="leave out one of them",
                code="E-OPTION-CONFLICT",
            )
        from decathlete.workflows.plan_source import read_source_plan  # here: it imports models

        return cls(plan=read_source_plan(model, configuration), model=model)


def plan_preparation(
    spec: DatasetSpec,
    fingerprint: Fingerprint,
    configuration: Configuration,
    folder: Path,
    *,
    options: PlanOptions,
    training: TrainConfig | None,
    source: SourcePlan | None = None,
    workers: Workers,
    fold_resources: Mapping[str, float] | None = None,
    overwrite: bool = False,
    warn: bool = True,
) -> Plan:
    """Return the plan that a dataset is prepared by.

    Args:
        folder: folder of the prepared data. Data that are there keep a grid that the planner has chosen for another
            training time, unless ``overwrite`` is set. What is measured for the plan is stored beside it.
        source: model whose plan is reused.
        options, training, workers, fold_resources: see :func:`~decathlete.workflows.preprocess.preprocess`.
        warn: log warnings about the resolution.

    Raises:
        OptionError: options that contradict each other, the images or ``source``.
        PlanError: the images do not justify the configuration.
    """
    plan = _make_plan(source, spec, fingerprint, configuration, options=options)
    if training is not None:
        from decathlete.workflows.resolution import plan_resolution  # here: it imports the training

        plan = plan_resolution(
            plan,
            spec,
            fingerprint,
            options=options,
            config=training,
            folder=folder.parent,
            recorded=None if overwrite else _recorded_plan(folder),
            workers=workers,
            fold_resources=fold_resources,
            warn=warn,
        )
    return _with_share(plan, options, timed=training is not None and training.max_time_s is not None, warn=warn)


def check_share(options: PlanOptions, *, timed: bool) -> None:
    """Check that a share of the coarse start is set only if the user or the planner sets that start.

    Args:
        timed: whether the planner could choose one; whether it does depends on configuration, time and machine.

    Raises:
        OptionError: there is no coarse start, and none could be chosen.
    """
    share = share_of_planned_start(options.overrides)
    if share and not timed:
        raise OptionError(
            f"--set {share[-1]}: the training has no coarse start",
            remedy="set coarse_start=Z,Y,X, too; or limit the training time, for which one may be chosen (--max-time, "
            "without --no-adapt)",
        )


def _make_plan(
    source: SourcePlan | None,
    spec: DatasetSpec,
    fingerprint: Fingerprint,
    configuration: Configuration,
    *,
    options: PlanOptions,
) -> Plan:
    """Return the plan by the rules, or with the decisions of ``source``; log what was reused."""
    if source is None:
        return plan_configuration(spec, fingerprint, configuration, options=options)
    derived = derive_plan(
        source.plan, spec, fingerprint, configuration=configuration, options=options, origin=str(source.model)
    )
    for line in derived.lines:
        log.info("%s", line)
    return derived.plan


def _with_share(plan: Plan, options: PlanOptions, *, timed: bool, warn: bool) -> Plan:
    """Return the plan with the share that the user set for the coarse start that the planner chose.

    Raises:
        OptionError: as of :func:`check_share`.
    """
    share = share_of_planned_start(options.overrides)
    if not share or plan.coarse_start is not None:
        return override(plan, share)
    check_share(options, timed=timed)
    log.log(
        logging.WARNING if warn else logging.DEBUG,
        "--set %s has no effect on the configuration %s: all of its training uses one grid",
        share[-1],
        plan.configuration_name,
    )
    return plan


def _recorded_plan(folder: Path) -> Plan | None:
    with suppress(DecathleteError):  # absent, or damaged: then the folder is rejected
        return Plan.load(folder / "plan.json")
    return None
