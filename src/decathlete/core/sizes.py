"""Numbers of bytes as people write them, and whether a disk has room for them."""

from __future__ import annotations

import shutil
from pathlib import Path

from decathlete.errors import OutputError

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def say_bytes(n_bytes: float) -> str:
    """``n_bytes`` for a reader, in decimal units.

    >>> say_bytes(28_416_000)
    '28.4 MB'
    """
    for size, unit in _UNITS:
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes:.0f} bytes"


def require_room(folder: Path, n_bytes: int, *, needed_for: str, remedy: str) -> None:
    """Refuse before the work what would fill the disk in the middle of it.

    Args:
        folder: exists, on the disk to be written to.
        needed_for: the end of the sentence "48.0 MB are needed ...".

    Raises:
        OutputError: fewer than ``n_bytes`` are free.
    """
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise OutputError(
            f"{say_bytes(n_bytes)} are needed {needed_for}, but the disk has {say_bytes(free)} free",
            where=folder,
            remedy=remedy,
            code="E-DISK-FULL",
        )
