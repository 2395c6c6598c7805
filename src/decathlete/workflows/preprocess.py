"""Prepare a raw dataset for training: check, fingerprint, splits, plan, and every case."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decathlete.core.choices import Configuration
from decathlete.core.geometry import Triple
from decathlete.core.locks import locked_folder, locked_output
from decathlete.core.output_paths import check_output_folder
from decathlete.core.parallel import Workers, require_shared
from decathlete.core.progress import CaseProgress
from decathlete.dataset.spec import DatasetSpec
from decathlete.dataset.splits import Splits
from decathlete.planning.network_spec import Dims
from decathlete.planning.options import PlanOptions
from decathlete.planning.plan import Plan
from decathlete.planning.plan_from import options_with
from decathlete.preprocessing.run import preprocess as prepare_store
from decathlete.preprocessing.store import COARSE_START, PreparedStore
from decathlete.workflows.finished_store import find_finished_store, update_codes
from decathlete.workflows.plan_options_check import check_plan_options
from decathlete.workflows.preparation_plan import SourcePlan, check_share, plan_preparation
from decathlete.workflows.raw_dataset import choose_folds, load_or_make_fingerprint, read_task
from decathlete.workflows.workspace import Workspace, folder_name

if TYPE_CHECKING:
    from decathlete.training.config import TrainConfig


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
    source = None if plan_from is None else SourcePlan.read(plan_from, which, training)
    if source is not None:
        options = options_with(source.plan, options)
    else:
        check_share(options, timed=training is not None and training.max_time_s is not None)
    spec = read_task(task, workspace=workspace, options=options, spacing=spacing, image_formats=image_formats)
    check_plan_options(spec, options)
    with locked_output(folder, wait_for="prepared"):
        store = find_finished_store(folder, spec) if reuse and not overwrite else None
        store = None if store is None else update_codes(store, spec)
        if store is not None and store.plan.previous_stage is not None:
            return _prepare_second_stage_again(store, spec, workspace, task, workers, on_plan, progress)
        if store is not None and not _may_suggest_another_grid(training):
            return _reuse(store, on_plan)
        with locked_folder(folder.parent, wait_for="checked the dataset of"):
            require_shared(workers, reads=[spec.root], writes=[folder.parent])
            fingerprint = load_or_make_fingerprint(
                spec, folder.parent, options.orientation, workers=workers, progress=checking
            )
            plan = plan_preparation(
                spec,
                fingerprint,
                which,
                folder,
                options=options,
                training=training,
                source=source,
                workers=workers,
                fold_resources=fold_resources,
                overwrite=overwrite,
            )
        if store is not None:
            return _reuse(store, on_plan)
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


def _may_suggest_another_grid(training: TrainConfig | None) -> bool:
    """Return whether a warning is due if prepared data have another grid than the training time suggests.

    That of a training from a trained model would need its network, and the model may be gone since it began.
    """
    return training is not None and training.max_time_s is not None and training.pretrained is None


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


def _reuse(store: PreparedStore, on_plan: Callable[[Plan], None] | None) -> PreparedStore:
    if on_plan:
        on_plan(store.plan)
    return store


def _predictions_of_first_stage(
    plan: Plan, workspace: Workspace, task: str | Path, splits: Splits, spec: DatasetSpec
) -> Mapping[str, Path] | None:
    """Return the predictions that the second stage of a cascade has as inputs; ``None``: the plan is no such stage."""
    if plan.previous_stage is None:
        return None
    from decathlete.workflows.cascade import find_first_stage  # here: it imports models and trainings

    return find_first_stage(workspace, task, plan, splits, [case.id for case in spec.cases]).predictions
