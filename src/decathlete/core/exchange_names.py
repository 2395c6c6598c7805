"""Exchange of the names of two files or folders in one step of the file system."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = _RENAME_SWAP = 2
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV}


def exchange_names(first: Path, second: Path) -> bool:
    """Exchange the names of two files or folders of one file system; no other process sees one name missing.

    Linux (``renameat2``) and macOS (``renamex_np``) can do it, most network file systems cannot.

    Returns:
        Whether they were exchanged; if not, nothing has changed.

    Raises:
        OSError: one of them is missing, or may not be renamed.
    """
    if sys.platform not in ("linux", "darwin"):
        return False
    paths = os.fsencode(first), os.fsencode(second)
    library = ctypes.CDLL(None, use_errno=True)
    if hasattr(library, "renameat2"):
        failed = library.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    elif hasattr(library, "renamex_np"):
        failed = library.renamex_np(*paths, _RENAME_SWAP)
    else:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(first))
