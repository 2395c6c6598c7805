"""Loads the images of a run's cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decathlete.dataset.find_dataset import MANIFEST
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import DecathleteError
from decathlete.export.images import Images, case_images, stored_images
from decathlete.io.reading import Reading
from decathlete.planning.plan import Plan
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.validate import find_run_folder


def load_run_record(model: Path) -> RunRecord | None:
    """Load the record of the run that a model belongs to; ``None`` if it belongs to none.

    Args:
        model: folder of a run, or the model folder in it.
    """
    run = find_run_folder(model)
    return None if run is None else RunRecord.load(run / "run.json")


def load_run_images(
    record: RunRecord,
    case_ids: Sequence[str],
    plan: Plan,
    *,
    dataset: Path | None = None,
    reading: Reading | None = None,
) -> Images:
    """Load the prepared images of a run's cases, or prepare them from the raw dataset.

    The result is empty if neither exists.

    Args:
        record: record of the run.
        case_ids: ids of the cases.
        plan: plan of the model.
        dataset: raw dataset, if it has moved since training; a dataset with another name is ignored.
        reading: how the files of ``dataset`` are read; ``None``: as in training.
    """
    try:
        return stored_images(plan, Path(record.prepared), case_ids)
    except DecathleteError:
        root = Path(record.dataset_root) if record.dataset_root else None
    if dataset is not None and read_dataset(dataset).name == record.dataset:
        root = dataset
    else:
        reading = None
    if root is None or not (root / MANIFEST).is_file():
        return {}
    reading = reading or record.reading
    by_id = {c.id: c for c in read_dataset(root, spacing=reading.spacing, formats=reading.formats).cases}
    return case_images(plan, [by_id[case_id] for case_id in case_ids if case_id in by_id])
