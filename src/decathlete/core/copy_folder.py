"""Copies of folders that fail with the system's error."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from fnmatch import fnmatch
from pathlib import Path


def copy_folder(
    source: Path,
    target: Path,
    *,
    without: Collection[str] = (),
    copy: Callable[[Path, Path], object] = shutil.copy2,
) -> None:
    """Copy a folder to ``target``, which is created.

    The first failure ends it, so that a full disk is recognised; ``shutil.copytree`` goes on, and raises one text about
    all failures.

    Args:
        without: patterns of names of files and folders that are left out.
        copy: copies a file.

    Raises:
        OSError: a file cannot be read or written.
    """
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in without):
            continue
        if path.is_dir():
            copy_folder(path, target / path.name, without=without, copy=copy)
        else:
            copy(path, target / path.name)
