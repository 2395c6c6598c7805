"""Checks of the place of an output before the work: it can be written, and it is not in a raw dataset."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from decathlete.core.files import output_code, temporary_name
from decathlete.errors import OutputError

_IMAGE_FOLDERS = ("imagesTr", "labelsTr", "imagesTs")
"""Folders of a raw dataset; a model for nnU-Net has a ``dataset.json``, too."""


def check_output_path(path: str | Path) -> Path:
    """Return ``path`` as a :class:`Path` if a file or folder can be written there; nothing is written.

    Raises:
        OutputError: it is empty, lies in a raw dataset, or its folder is a file or cannot be written.
    """
    path = check_writable_path(path)
    _reject_raw_dataset(path)
    return path


def check_writable_path(path: str | Path) -> Path:
    """Check as :func:`check_output_path`, for a path that may lie in a dataset.

    Raises:
        OutputError: it is empty, or its folder is a file or cannot be written.
    """
    if str(path) == "":
        raise OutputError("the path of the output is empty", remedy="name a file or folder; . is the current folder")
    path = Path(path)
    existing = next((p for p in (path, *path.absolute().parents) if os.path.lexists(p)), path)
    if existing != path and not existing.is_dir():
        raise OutputError(f"cannot be written ({existing} is not a folder)", where=path, remedy="choose another folder")
    if existing.is_dir() and not os.access(existing, os.W_OK | os.X_OK):
        read_only = os.statvfs(existing).f_flag & os.ST_RDONLY if hasattr(os, "statvfs") else False
        why = "read-only file system" if read_only else "no permission"
        raise OutputError(f"cannot be written ({why})", where=path, remedy="choose a folder that you may write to")
    return path


def check_output_folder(folder: str | Path) -> Path:
    """Check as :func:`check_output_path`, and that no file is in the place of the folder.

    Raises:
        OutputError: see there; or ``folder`` is a file.
    """
    path = check_output_path(folder)
    if os.path.lexists(path) and not path.is_dir():
        raise OutputError("is a file, not a folder", where=path, remedy="choose another folder, or remove the file")
    return path


def check_outside(folder: Path, dataset: Path) -> None:
    """Check that an output folder does not lie in the raw dataset that is read.

    Raises:
        OutputError: it does.
    """
    if folder.resolve().is_relative_to(dataset.resolve()):
        raise _in_raw_dataset(folder, dataset)


def writable_folder(path: Path) -> Path:
    """Create the folder ``path`` if need be and check that it can be written to, before hours of work.

    Raises:
        OutputError: it cannot be written, or it lies in a raw dataset, where nothing is ever written.
    """
    _reject_raw_dataset(path)
    probe = path / temporary_name()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as problem:
        raise OutputError(
            f"cannot be written ({problem.strerror})",
            where=path,
            remedy="choose a folder that you may write to",
            code=output_code(problem),
        ) from problem
    finally:
        with suppress(OSError):
            probe.unlink()
    return path


def _reject_raw_dataset(path: Path) -> None:
    for folder in (path.resolve(), *path.resolve().parents):
        if (folder / "dataset.json").is_file() and any((folder / name).is_dir() for name in _IMAGE_FOLDERS):
            raise _in_raw_dataset(path, folder)


def _in_raw_dataset(path: Path, dataset: Path) -> OutputError:
    return OutputError(
        f"lies in the raw dataset {dataset.name}, where nothing is ever written",
        where=path,
        remedy="choose a folder outside of the dataset",
        code="E-OUTPUT-INPUT",
    )
