"""The cases that a server is compared and measured on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decathlete.dataset.find_dataset import MANIFEST
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case
from decathlete.errors import DatasetError, ImageError, OptionError
from decathlete.export.images import find_image_cases
from decathlete.io.format_lookup import find_format
from decathlete.io.format_settings import changed_reading
from decathlete.io.images import read_grid
from decathlete.io.reading import Reading
from decathlete.workflows.run_images import load_run_record


def find_cases(
    model: Path, inputs: Path | None, *, n_channels: int, limit: int | None, reading: Reading = Reading()
) -> Sequence[Case]:
    """Return images in ``inputs``, or the held-out cases of the model's run, which are read as in its training.

    Args:
        limit: number of cases; ``None``: all.
        reading: how ``inputs`` are read.

    Raises:
        ImageError: there are no images in ``inputs``.
        DatasetError: no case that belongs to the model can be found.
        OptionError: a setting of ``reading`` has no effect.
    """
    if inputs is not None:
        return find_image_cases(inputs, n_channels=n_channels, reading=reading)[:limit]
    return _held_out(model)[:limit]


def _held_out(model: Path) -> Sequence[Case]:
    record = load_run_record(model)
    root = Path(record.dataset_root) if record is not None and record.dataset_root else None
    if record is None or root is None or not (root / MANIFEST).is_file():
        raise DatasetError(
            "the raw images of the model's run were not found", where=model, remedy="name images with --input"
        )
    reading = record.reading
    by_id = {case.id: case for case in read_dataset(root, spacing=reading.spacing, formats=reading.formats).cases}
    found = [by_id[case_id] for case_id in record.val or record.train if case_id in by_id]
    if not found:
        raise DatasetError("has none of the cases of the model's run", where=root, remedy="name images with --input")
    return found


def require_sendable(case: Case) -> None:
    """Check that a server that receives the file of a case reads it as it is read here.

    Raises:
        OptionError: the case has several files or a folder, or its file is read with a spacing or with settings of its
            format, which the server does not have.
    """
    path = case.images[0]
    if len(case.images) != 1 or path.is_dir():
        raise OptionError("--send file needs one file for each case", remedy="use --send volume")
    if not _is_read_alike(case):
        raise OptionError(
            "--send file: the server would read this file without its spacing or settings of its image format",
            where=path,
            remedy="use --send volume",
        )


def _is_read_alike(case: Case) -> bool:
    """Return whether the file of a case is read in the same way without its spacing and settings of its format."""
    path = case.images[0]
    found = find_format(path)
    if found is not None and found.settings.component in changed_reading(case.formats):
        return False
    if case.spacing is None:
        return True
    try:
        return read_grid(path) == read_grid(path, spacing=case.spacing)
    except ImageError:
        return False
