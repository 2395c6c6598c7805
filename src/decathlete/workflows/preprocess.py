"""Prepare a raw dataset for training: check, fingerprint, splits, plan, and every case."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decathlete.core.choices import Configuration, Orientation
from decathlete.core.geometry import Triple
from decathlete.core.locks import locked_folder, locked_output
from decathlete.core.output_paths import check_output_folder
from decathlete.core.parallel import Workers, require_shared
from decathlete.core.progress import CaseProgress
from decathlete.dataset.annotated import read_annotated
from decathlete.dataset.check import check_dataset
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import DatasetSpec
from decathlete.dataset.split_cases import split_cases
from decathlete.dataset.split_options import SplitOptions
from decathlete.dataset.splits import Splits
from decathlete.errors import DecathleteError, OptionError
from decathlete.io.format_settings import format_settings
from decathlete.planning.coarse_start_options import share_of_planned_start
from decathlete.planning.configurations import plan_configuration
from decathlete.planning.fingerprint import Fingerprint, make_fingerprint
from decathlete.planning.network_spec import Dims
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import override
from decathlete.planning.plan import Plan
from decathlete.planning.plan_from import options_with
from decathlete.planning.plan_from import plan_from as derive_plan
from decathlete.preprocessing.run import preprocess as prepare_store
from decathlete.preprocessing.store import COARSE_START, PreparedStore
from decathlete.workflows.finished_store import find_finished_store, update_codes
from decathlete.workflows.plan_options_check import check_plan_options
from decathlete.workflows.workspace import Workspace, folder_name

if TYPE_CHECKING:
    from decathlete.training.config import TrainConfig

log = logging.getLogger(__name__)


def preprocess(
    task: str | Path,
    *,
    dims: Dims = 3,
    configuration: Configuration | None = None,
    workspace: Workspace = Workspace(),
    options: PlanOptions = PlanOptions(),
    spacing: Triple | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    training: TrainConfig | None = None,
    plan_from: Path | None = None,
    workers: Workers = 2,
    fold_resources: Mapping[str, float] | None = None,
    overwrite: bool = False,
    reuse: bool = False,
    on_plan: Callable[[Plan], None] | None = None,
    checking: CaseProgress | None = None,
    progress: CaseProgress | None = None,
) -> PreparedStore:
    """Check, plan and prepare a dataset; results of an earlier run are kept.

    If another process prepares the same data, wait until it has finished.

    Args:
        configuration: name of the configuration, instead of ``dims``.
        spacing: z, y, x in mm, for files that do not contain their spacing.
        image_formats: settings of image formats that change how files are read, by the name of the format.
        training: settings of the training whose time limit and device may make the grid coarser; ``None``: full
            resolution.
        plan_from: folder of a trained model whose plan is reused: network, patch, spacing, and normalisation of
            the channels with the same names.
        workers: number of cases that are processed in parallel, or an executor (:func:`decathlete.connect_cluster`).
        fold_resources: with an executor and ``training``, what a worker offers that trains a fold, e.g.
            ``{"MEMORY": 64e9}``.
        reuse: use a finished store of the unchanged dataset, even if it was made with different options.
        on_plan: called with the plan.
        checking, progress: called after each checked and each prepared case.

    Raises:
        ModelError: the first stage of a cascade is not finished; or ``plan_from`` is no model, or has no plan of the
            configuration.
        OptionError: options of the plan that contradict each other or ``plan_from``.
        DatasetError: the check found errors; lists all of them.
        OutputError: the folder contains data that were prepared with another plan, and ``overwrite`` is not given; or
            another process reads them, or the folder cannot be written.
        CasesFailedError: some cases could not be prepared.
    """
    which = configuration or folder_name(dims)
    folder = check_output_folder(workspace.prepared_folder(task, which))
    source = None if plan_from is None else _read_source(plan_from, which, training)
    if source is not None:
        options = options_with(source, options)
    spec = read_task(task, workspace=workspace, options=options, spacing=spacing, image_formats=image_formats)
    check_plan_options(spec, options)
    with locked_output(folder, wait_for="prepared"):
        store = find_finished_store(folder, spec) if reuse and not overwrite else None
        store = None if store is None else update_codes(store, spec)
        if store is not None and store.plan.previous_stage is not None:
            return _prepare_second_stage_again(store, spec, workspace, task, workers, on_plan, progress)
        if store is not None and (training is None or training.max_time_s is None):
            return _reuse(store, on_plan)
        with locked_folder(folder.parent, wait_for="checked the dataset of"):
            require_shared(workers, reads=[spec.root], writes=[folder.parent])
            fingerprint = load_or_make_fingerprint(
                spec, folder.parent, options.orientation, workers=workers, progress=checking
            )
            plan = _make_plan(source, spec, fingerprint, which, options=options, origin=str(plan_from))
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
                )
        if store is not None:
            return _reuse(store, on_plan)
        plan = _with_share(plan, options, timed=training is not None and training.max_time_s is not None)
        if on_plan:
            on_plan(plan)
        splits = choose_folds(spec, options.split, fingerprint, folder, overwrite=overwrite)
        return _prepare_grids(
            partial(
                prepare_store,
                spec,
                fingerprint=fingerprint,
                splits=splits,
                previous_stage=_predictions_of_first_stage(plan, workspace, task, splits, spec),
                workers=workers,
                overwrite=overwrite,
            ),
            plan,
            folder,
            progress,
        )


def _prepare_second_stage_again(
    store: PreparedStore,
    spec: DatasetSpec,
    workspace: Workspace,
    task: str | Path,
    workers: Workers,
    on_plan: Callable[[Plan], None] | None,
    progress: CaseProgress | None,
) -> PreparedStore:
    """Prepare those cases of a cascade again that its first stage has predicted anew; plan and folds are kept."""
    if on_plan:
        on_plan(store.plan)
    return _prepare_grids(
        partial(
            prepare_store,
            spec,
            fingerprint=store.fingerprint,
            splits=store.splits,
            previous_stage=_predictions_of_first_stage(store.plan, workspace, task, store.splits, spec),
            workers=workers,
        ),
        store.plan,
        store.folder,
        progress,
    )


def _prepare_grids(
    prepare: Callable[..., PreparedStore], plan: Plan, folder: Path, progress: CaseProgress | None
) -> PreparedStore:
    """Prepare every case on the plan's grid, and on the coarser grid on which a training begins, if it has one."""
    if plan.coarse_start is None:
        return prepare(plan, folder, progress=progress)
    store = prepare(plan, folder, progress=_part_of_two(progress, 0))
    prepare(plan.on_coarse_grid(), folder / COARSE_START, progress=_part_of_two(progress, 1))
    return store


def _part_of_two(progress: CaseProgress | None, part: int) -> CaseProgress | None:
    """Return the progress of one of two passes over all cases."""
    if progress is None:
        return None
    return lambda done, total, case_id: progress(part * total + done, 2 * total, case_id)


def read_task(
    task: str | Path,
    *,
    workspace: Workspace,
    options: PlanOptions,
    spacing: Triple | None,
    image_formats: Mapping[str, Mapping[str, Any]] | None,
) -> DatasetSpec:
    """Read the manifest of a dataset as the options of the plan say.

    Args:
        spacing, image_formats: see :func:`preprocess`.

    Raises:
        ManifestError: there is no dataset, or its manifest or the list of annotated classes is not valid.
        OptionError: a setting of an image format has no effect.
    """
    spec = read_dataset(
        workspace.dataset(task),
        group_by=options.group_by,
        spacing=spacing,
        formats=format_settings(image_formats or {}),
        annotated=None if options.annotated is None else read_annotated(options.annotated),
    )
    spec.check_formats()
    return spec


def _reuse(store: PreparedStore, on_plan: Callable[[Plan], None] | None) -> PreparedStore:
    if on_plan:
        on_plan(store.plan)
    return store


def choose_folds(
    spec: DatasetSpec, options: SplitOptions, fingerprint: Fingerprint, folder: Path, *, overwrite: bool
) -> Splits:
    """Return the folds of a dataset, and log what the user should know about them.

    Args:
        folder: folder of the prepared data. Folds that are recorded there are kept, unless ``overwrite`` is set or the
            options ask for others.

    Raises:
        DatasetError: no case can be held out, or the given folds are not valid.
    """
    recorded, path = None, folder / "splits.json"
    if not overwrite and path.is_file():
        with suppress(DecathleteError):  # damaged: the folder is then rejected
            recorded = Splits.load(path)
    choice = split_cases(spec, options, fingerprint.presence(spec.labels), recorded=recorded)
    for note in (*spec.unused, *choice.notes):
        log.info("%s", note)
    for warning in choice.warnings:
        log.warning("%s", warning)
    return choice.splits


def _read_source(model: Path, configuration: Configuration, training: TrainConfig | None) -> Plan:
    if training is not None and training.max_time_s is not None:
        raise OptionError(
            "--plan-from reuses the resolution of a model, and --max-time would choose another",
            remedy="leave out one of them",
            code="E-OPTION-CONFLICT",
        )
    from decathlete.workflows.plan_source import read_source_plan  # here: it imports models

    return read_source_plan(model, configuration)


def _make_plan(
    source: Plan | None,
    spec: DatasetSpec,
    fingerprint: Fingerprint,
    configuration: Configuration,
    *,
    options: PlanOptions,
    origin: str,
) -> Plan:
    """Return the plan by the rules, or with the decisions of ``source``; log what was reused."""
    if source is None:
        return plan_configuration(spec, fingerprint, configuration, options=options)
    derived = derive_plan(source, spec, fingerprint, configuration=configuration, options=options, origin=origin)
    for line in derived.lines:
        log.info("%s", line)
    return derived.plan


def _with_share(plan: Plan, options: PlanOptions, *, timed: bool) -> Plan:
    """Return the plan with the share that the user set for the coarse start that the planner chose.

    Args:
        timed: whether it could choose one; whether it did depends on the configuration, the time and the machine.

    Raises:
        OptionError: there is no coarse start, and none could be chosen.
    """
    share = share_of_planned_start(options.overrides)
    if not share or plan.coarse_start is not None:
        return override(plan, share)
    if not timed:
        raise OptionError(
            f"--set {share[-1]}: the training has no coarse start",
            remedy="set coarse_start=Z,Y,X, too; or limit the training time, for which one may be chosen (--max-time)",
        )
    log.warning(
        "--set %s has no effect on the configuration %s: all of its training uses one grid",
        share[-1],
        plan.configuration_name,
    )
    return plan


def _predictions_of_first_stage(
    plan: Plan, workspace: Workspace, task: str | Path, splits: Splits, spec: DatasetSpec
) -> Mapping[str, Path] | None:
    """Return the predictions that the second stage of a cascade has as inputs; ``None``: the plan is no such stage."""
    if plan.previous_stage is None:
        return None
    from decathlete.workflows.cascade import find_first_stage  # here: it imports models and trainings

    return find_first_stage(workspace, task, plan, splits, [case.id for case in spec.cases]).predictions


def _recorded_plan(folder: Path) -> Plan | None:
    with suppress(DecathleteError):  # absent, or damaged: then the folder is rejected
        return Plan.load(folder / "plan.json")
    return None


def load_or_make_fingerprint(
    spec: DatasetSpec, folder: Path, orientation: Orientation, *, workers: Workers, progress: CaseProgress | None = None
) -> Fingerprint:
    """Return the dataset's fingerprint, which is stored beside the prepared data until the dataset changes.

    A dataset is checked before its fingerprint is made, so that a stored fingerprint means that the check passed.
    """
    path = folder / f"fingerprint_{orientation}.json"
    digest = spec.digest()
    if path.is_file():
        try:
            stored = Fingerprint.load(path)
        except DecathleteError:
            log.info("the fingerprint %s is damaged and is made again", path)
        else:
            if stored.dataset_digest == digest:
                return stored
            log.info("the dataset has changed; it is checked again and a new fingerprint is made")
    report = check_dataset(spec, workers=workers, progress=progress)
    report.raise_for_errors()
    for problem in report.problems:
        log.warning("%s", problem)
    fingerprint = make_fingerprint(spec, orientation=orientation, workers=workers)
    fingerprint.save(path)
    return fingerprint
