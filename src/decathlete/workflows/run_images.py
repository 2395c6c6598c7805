"""Loads the images of a run's cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decathlete.dataset.find_dataset import MANIFEST
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import DecathleteError
from decathlete.export.images import Images, case_images, stored_images
from decathlete.io.format_settings import format_settings
from decathlete.planning.plan import Plan
from decathlete.training.reporting.records import RunRecord


def load_run_images(record: RunRecord, case_ids: Sequence[str], plan: Plan, *, dataset: Path | None = None) -> Images:
    """Load the prepared images of a run's cases, or prepare them from the raw dataset.

    The result is empty if neither exists.

    Args:
        record: record of the run.
        case_ids: ids of the cases.
        plan: plan of the model.
        dataset: raw dataset, if it has moved since training; a dataset with another name is ignored.
    """
    try:
        return stored_images(plan, Path(record.prepared), case_ids)
    except DecathleteError:
        root = Path(record.dataset_root) if record.dataset_root else None
    if dataset is not None and read_dataset(dataset).name == record.dataset:
        root = dataset
    if root is None or not (root / MANIFEST).is_file():
        return {}
    formats = format_settings(record.image_formats)
    by_id = {case.id: case for case in read_dataset(root, spacing=record.spacing, formats=formats).cases}
    return case_images(plan, [by_id[case_id] for case_id in case_ids if case_id in by_id])
