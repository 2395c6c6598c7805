"""Prepare a raw dataset for training: check, fingerprint, splits, plan, and every case."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from decathlete.core.choices import Orientation
from decathlete.core.files import writable_folder
from decathlete.core.parallel import Workers, require_shared
from decathlete.core.progress import CaseProgress
from decathlete.dataset.check import check_dataset
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import DatasetSpec
from decathlete.dataset.splits import make_splits
from decathlete.errors import DecathleteError
from decathlete.planning.fingerprint import Fingerprint, make_fingerprint
from decathlete.planning.network_spec import Dims
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import plan_with
from decathlete.planning.plan import Plan
from decathlete.preprocessing.run import preprocess as prepare_store
from decathlete.preprocessing.store import PreparedStore, StoreSource
from decathlete.workflows.workspace import Workspace

log = logging.getLogger(__name__)


def preprocess(
    task: str | Path,
    *,
    dims: Dims = 3,
    workspace: Workspace = Workspace(),
    options: PlanOptions = PlanOptions(),
    workers: Workers = 2,
    overwrite: bool = False,
    reuse: bool = False,
    on_plan: Callable[[Plan], None] | None = None,
    checking: CaseProgress | None = None,
    progress: CaseProgress | None = None,
) -> PreparedStore:
    """Check, plan and prepare a dataset; results of an earlier run are kept.

    Args:
        workers: number of cases that are processed in parallel, or an executor (:func:`decathlete.connect_cluster`).
        reuse: use a finished store of the unchanged dataset, even if it was made with different options.
        on_plan: called with the plan.
        checking, progress: called after each checked and each prepared case.

    Raises:
        DatasetError: the check found errors; lists all of them.
        OutputError: the folder contains data that were prepared with another plan, and ``overwrite`` is not given.
        CasesFailedError: some cases could not be prepared.
    """
    spec = read_dataset(workspace.dataset(task), group_by=options.group_by)
    folder = workspace.prepared_folder(task, dims)
    writable_folder(folder.parent)
    if reuse and not overwrite and (store := _finished_store(folder, spec)) is not None:
        if on_plan:
            on_plan(store.plan)
        return store
    require_shared(workers, reads=[spec.root], writes=[folder.parent])
    fingerprint = load_or_make_fingerprint(spec, folder.parent, options.orientation, workers=workers, progress=checking)
    plan = plan_with(spec, fingerprint, dims=dims, options=options)
    if on_plan:
        on_plan(plan)
    return prepare_store(
        spec,
        plan,
        folder,
        fingerprint=fingerprint,
        splits=make_splits(spec, n_folds=options.n_folds, seed=options.split_seed),
        workers=workers,
        overwrite=overwrite,
        progress=progress,
    )


def _finished_store(folder: Path, spec: DatasetSpec) -> PreparedStore | None:
    try:
        store = PreparedStore.open(folder)
        unchanged = StoreSource.load(folder / "source.json").dataset_digest == spec.digest()
    except DecathleteError:
        return None
    return store if unchanged else None


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
