"""Temporary folders in the system's folder for them, which outlive a killed process only until the next one starts."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from decathlete.core.files import remove, translate_os_error

PREFIX = "decathlete-"
"""Prefix of the names of temporary folders; beside each is a lock file, ``NAME.lock``."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Provide a temporary folder, and remove those that killed processes left.

    Each folder has a lock file beside it, which its process holds: the process lives as long as the lock is held,
    whatever container or user name space it runs in.

    Raises:
        OutputError: there is no folder for temporary files that can be written to.
    """
    parent = Path(tempfile.gettempdir())
    _remove_leftovers(parent)
    folder = parent / f"{PREFIX}{uuid.uuid4().hex[:12]}"
    lock_file = folder.with_name(f"{folder.name}.lock")
    lock = FileLock(lock_file, thread_local=False)
    remedy = "free space there, or set TMPDIR to another folder"
    with translate_os_error("cannot store temporary files", where=parent, remedy=remedy):
        lock.acquire()
    try:
        with translate_os_error("cannot store temporary files", where=parent, remedy=remedy):
            folder.mkdir(mode=0o700)
        yield folder
    finally:
        remove(folder)
        with suppress(OSError):
            lock_file.unlink()
        lock.release()


def _remove_leftovers(parent: Path) -> None:
    for lock_file in parent.glob(f"{PREFIX}*.lock"):
        with suppress(OSError):  # its process runs (a time-out is an OSError), or the folder belongs to another user
            if hasattr(os, "getuid") and lock_file.lstat().st_uid != os.getuid():
                continue
            with FileLock(lock_file, timeout=0, thread_local=False):
                remove(lock_file.with_suffix(""))
                lock_file.unlink()
