"""The cases that a server is compared and measured on."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from decathlete.dataset.find_dataset import MANIFEST
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import DatasetError
from decathlete.io.images import find_inputs
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.validate import find_run_folder

Cases = Mapping[str, tuple[Path, ...]]
"""Case -> its files, one for each channel or one for all."""


def find_cases(model: Path, inputs: Path | None, *, n_channels: int, limit: int | None) -> Cases:
    """Return images in ``inputs``, or the held-out cases of the model's run.

    Args:
        limit: number of cases; ``None``: all.

    Raises:
        ImageError: there are no images in ``inputs``.
        DatasetError: no case that belongs to the model can be found.
    """
    found = find_inputs(inputs, n_channels=n_channels) if inputs is not None else _held_out(model)
    return {case_id: tuple(files) for case_id, files in islice(found.items(), limit)}


def _held_out(model: Path) -> Cases:
    run = find_run_folder(model)
    record = None if run is None else RunRecord.load(run / "run.json")
    root = Path(record.dataset_root) if record is not None and record.dataset_root else None
    if record is None or root is None or not (root / MANIFEST).is_file():
        raise DatasetError(
            "the raw images of the model's run were not found", where=model, remedy="name images with --input"
        )
    wanted = record.val or record.train
    by_id = {case.id: case for case in read_dataset(root, spacing=record.spacing).cases}
    found = {case_id: tuple(by_id[case_id].images) for case_id in wanted if case_id in by_id}
    if not found:
        raise DatasetError("has none of the cases of the model's run", where=root, remedy="name images with --input")
    return found
