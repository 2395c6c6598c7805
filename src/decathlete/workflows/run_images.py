"""Images of the cases that a run knows, where they are now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decathlete.dataset.manifest import MANIFEST, read_dataset
from decathlete.errors import DecathleteError
from decathlete.export.images import Images, case_images, stored_images
from decathlete.planning.plan import Plan
from decathlete.training.reporting.records import RunRecord


def run_images(record: RunRecord, case_ids: Sequence[str], plan: Plan, *, dataset: Path | None = None) -> Images:
    """Prepared images of a run's cases: as they were prepared, or else from the raw dataset; none where neither is.

    Args:
        dataset: where the raw dataset lies now, if it moved since training; one of another name is not looked at.
    """
    try:
        return stored_images(plan, Path(record.prepared), case_ids)
    except DecathleteError:
        root = Path(record.dataset_root) if record.dataset_root else None
    if dataset is not None and read_dataset(dataset).name == record.dataset:
        root = dataset
    if root is None or not (root / MANIFEST).is_file():
        return {}
    known = {case.id: case for case in read_dataset(root).cases}
    return case_images(plan, [known[case_id] for case_id in case_ids if case_id in known])
