"""Plan the resolution of a dataset for a training time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from decathlete.core.files import value_digest
from decathlete.core.parallel import Workers
from decathlete.dataset.spec import DatasetSpec
from decathlete.errors import DecathleteError
from decathlete.planning.configurations import options_of_configuration
from decathlete.planning.explain import format_grids
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.grid import Spacing
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import plan_at
from decathlete.planning.plan import Plan
from decathlete.planning.resolution import (
    Ceilings,
    candidate_spacings,
    choose_resolution,
    resolution_is_open,
    with_coarse_start,
)
from decathlete.preprocessing.ceilings import measure_ceilings
from decathlete.training.config import TrainConfig
from decathlete.training.pretrained import network_replacement
from decathlete.workflows.budget import budget_of_folds

log = logging.getLogger(__name__)

_GRID = ("target_spacing", "coarse_start")
"""Fields of the plan whose reasons tell why these grids are prepared."""


def plan_resolution(
    plan: Plan,
    spec: DatasetSpec,
    fingerprint: Fingerprint,
    *,
    options: PlanOptions,
    config: TrainConfig,
    folder: Path,
    recorded: Plan | None,
    workers: Workers,
    fold_resources: Mapping[str, float] | None = None,
    warn: bool = True,
) -> Plan:
    """Return ``plan``, with a coarse start if the training time is too short for full resolution.

    Prepared data keep their grid, although another time, or another machine, would be given another one.

    Args:
        plan: made with ``options``.
        config: settings of the training: its time limit, device and precision, and the model that it starts from.
        folder: the measured ceilings are stored there until the dataset changes.
        recorded: plan of data that are prepared already.
        workers, fold_resources: where cases are measured and folds are trained, see
            :class:`~decathlete.workflows.fold.FoldPipeline`.
        warn: log a warning if another grid is better for this training time.
    """
    as_trained = network_replacement(config, plan)
    budget = budget_of_folds(config, as_trained(plan).network, workers=workers, fold_resources=fold_resources)
    if not resolution_is_open(plan, budget):
        return plan
    ceilings = _load_or_measure(plan, spec, folder, workers=workers)

    own = options_of_configuration(plan.configuration_name, options)

    def replan(spacing: Spacing) -> Plan:
        return plan_at(spacing, spec, fingerprint, dims=plan.dims, options=own, configuration=plan.configuration)

    chosen = choose_resolution(
        plan, ceilings.ceilings, budget, n_cases=len(spec.cases), replan=replan, as_trained=as_trained
    )
    if recorded is None or not _keeps_recorded(recorded, chosen, ceilings):
        return chosen
    is_other = not all(map(_is_close, _spacings(recorded), _spacings(chosen)))
    log.log(
        logging.WARNING if warn and is_other else logging.DEBUG,
        "the prepared data have a spacing of %s; for this training time, %s is better: prepare them again with "
        "--overwrite, or in another folder with --prepared",
        format_grids(recorded),
        format_grids(chosen),
    )
    return _on_recorded_grids(plan, recorded, replan=replan)


def _on_recorded_grids(plan: Plan, recorded: Plan, *, replan: Callable[[Spacing], Plan]) -> Plan:
    """Return ``plan`` on the grids of ``recorded``, as they were planned: equal to it if nothing else has changed."""
    coarse = recorded.on_coarse_grid().target_spacing  # patch and batch were planned for it
    kept = plan if coarse == plan.target_spacing else replan(coarse)
    if recorded.coarse_start is not None:
        kept = with_coarse_start(plan, kept, recorded.target_spacing)
    if (kept.fingerprint_digest, kept.axis_order) == (recorded.fingerprint_digest, recorded.axis_order):
        kept = kept.revised(median_shape=recorded.median_shape)  # some releases rounded it in another way
    explained = (*_GRID, "patch_size") if kept.patch_size == recorded.patch_size else _GRID
    reasons = {field: recorded.reasons[field] for field in explained if field in recorded.reasons}
    return kept.revised(reasons=kept.reasons | reasons)


def _keeps_recorded(recorded: Plan, chosen: Plan, ceilings: Ceilings) -> bool:
    """Return whether prepared data with other grids than ``chosen`` are kept: the planner chose them, not the user."""
    if _spacings(recorded) == _spacings(chosen):
        return False
    if recorded.coarse_start is not None and ("coarse_start" in chosen.user_set or "coarse_start" in recorded.user_set):
        return False  # the user sets that there is none, or has set this one
    planned = [ceiling.spacing for ceiling in ceilings.ceilings]
    return any(_is_close(recorded.target_spacing, spacing) for spacing in planned) and (
        "target_spacing" not in recorded.user_set
    )


def _is_close(one: Spacing, other: Spacing) -> bool:
    """Return whether two spacings are equal but for rounding: some releases rounded small ones less finely."""
    return all(
        a == b or (a is not None and b is not None and math.isclose(a, b, rel_tol=2e-3))
        for a, b in zip(one, other, strict=True)
    )


def _spacings(plan: Plan) -> tuple[Spacing, Spacing]:
    return plan.target_spacing, plan.on_coarse_grid().target_spacing


def _load_or_measure(plan: Plan, spec: DatasetSpec, folder: Path, *, workers: Workers) -> Ceilings:
    spacings = candidate_spacings(plan)
    key = value_digest(
        [
            spec.digest(),
            plan.orientation,
            plan.axis_order,
            plan.labels.model_dump(mode="json"),
            plan.resampling.model_dump(mode="json"),
            spacings,
        ]
    )
    for path in sorted(folder.glob("ceilings_*.json")):  # 3d and its cascade have the same candidates
        try:
            stored = Ceilings.load(path)
        except DecathleteError:
            log.info("the file %s is damaged and is not used", path)
        else:
            if stored.key == key:
                return stored
    measured = Ceilings(key=key, ceilings=measure_ceilings(spec.cases, plan, spacings, workers=workers))
    measured.save(folder / f"ceilings_{plan.configuration_name}.json")
    return measured
