"""Find finished data of an unchanged dataset, which may be used although they were made with other options."""

from __future__ import annotations

import logging
from pathlib import Path

from decathlete.core.log_once import log_once
from decathlete.dataset.given_splits import find_given_splits
from decathlete.dataset.spec import DatasetSpec
from decathlete.dataset.splits import Splits
from decathlete.errors import DecathleteError
from decathlete.preprocessing.store import PreparedStore, StoreSource

log = logging.getLogger(__name__)


def find_finished_store(folder: Path, spec: DatasetSpec) -> PreparedStore | None:
    """Return the finished data of the unchanged dataset in ``folder``, whatever options they were made with."""
    try:
        store = PreparedStore.open(folder)
        if store.plan.coarse_start is not None:
            store.open_coarse_start()
        source = StoreSource.load(folder / "source.json")
        # the digest leaves the names of the cases out
        unchanged = source.dataset_digest == spec.digest() and source.case_ids == tuple(c.id for c in spec.cases)
    except DecathleteError:
        return None
    return store if unchanged and _keeps_folds(store.splits, spec, folder) else None


def update_codes(store: PreparedStore, spec: DatasetSpec) -> PreparedStore:
    """Save the dataset's codes for DICOM objects in the plan of prepared data, which do not depend on them."""
    plan = store.plan.with_codes(spec.structure_codes)
    if plan == store.plan:
        return store
    plan.save(store.folder / "plan.json")
    return PreparedStore.open(store.folder)


def _keeps_folds(recorded: Splits, spec: DatasetSpec, folder: Path) -> bool:
    """Return whether the recorded folds are kept; a list of folds beside the manifest that is not used is logged."""
    try:
        given = find_given_splits(spec)
    except DecathleteError as problem:
        log_once(log, f"not used, since {folder} was prepared with other folds: {problem}")
        return True
    if given is None or given.folds == recorded.folds:
        return True
    if given.source == recorded.source:
        return False  # the list has changed
    log_once(log, f"{given.source} is not used: {folder} was prepared with other folds; --overwrite replaces them")
    return True
