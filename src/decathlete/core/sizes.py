"""Numbers of bytes as text, and a check of free disk space."""

from __future__ import annotations

from pathlib import Path

from decathlete.core.machine import free_disk_bytes
from decathlete.errors import OutputError

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def format_bytes(n_bytes: float) -> str:
    """Format a number of bytes in decimal units.

    >>> format_bytes(28_416_000)
    '28.4 MB'
    """
    for size, unit in _UNITS:
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes:.0f} bytes"


def require_disk_space(folder: Path, n_bytes: int, *, needed_for: str, remedy: str) -> None:
    """Check that the disk has enough free space, before work that would otherwise fill it.

    Args:
        folder: a folder on the disk; it need not exist yet.
        needed_for: the end of the sentence "48.0 MB are needed ...".

    Raises:
        OutputError: fewer than ``n_bytes`` are free.
    """
    free = free_disk_bytes(folder)
    if free < n_bytes:
        raise OutputError(
            f"{format_bytes(n_bytes)} are needed {needed_for}, but the disk has {format_bytes(free)} free",
            where=folder,
            remedy=remedy,
            code="E-DISK-FULL",
        )
