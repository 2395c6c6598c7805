"""Checks that the worker processes see the same files as the command.

Folders that are only read are compared by the size and time of a file in them. Into folders that are written to, the
command writes a probe file that the worker must read, and the worker writes a reply that the command must read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from decathlete.core.files import TEMPORARY_PREFIX

VISIBLE_WITHIN_S = 10.0
"""Seconds that a network file system may need to show a file that another machine wrote."""
POLL_S = 0.1

Stamp = tuple[str, int, int] | None


@dataclass(frozen=True, kw_only=True)
class SharedPaths:
    """Absolute paths that all workers must see.

    Attributes:
        reads: files and folders.
        writes: existing folders.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    @classmethod
    def of(cls, *, reads: Sequence[Path], writes: Sequence[Path]) -> SharedPaths:
        """Make the paths absolute."""
        return cls(
            reads=tuple(str(path.absolute()) for path in reads),
            writes=tuple(str(path.absolute()) for path in writes),
        )

    def stamps(self) -> dict[str, Stamp]:
        """Return the stamp of each path that is read, as this process sees it now."""
        return {path: stamp(Path(path)) for path in self.reads}


def stamp(path: Path) -> Stamp:
    """Return name, size and time of a file (seconds; of a folder: of its first file), ``None`` if it does not exist."""
    try:
        if path.is_dir():
            files = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
            path = path / files[0] if files else path
        info = path.stat()
    except OSError:
        return None
    return (path.name, 0, 0) if path.is_dir() else (path.name, info.st_size, int(info.st_mtime))


def probe_path(folder: str, token: str, worker_id: str = "") -> Path:
    """Return the path of the probe of the command, or of the reply of a worker."""
    return Path(folder) / f"{TEMPORARY_PREFIX}probe-{token}{'-' if worker_id else ''}{worker_id}"


def problems_on_worker(
    reads: dict[str, Stamp], writes: Sequence[str], token: str, worker_id: str, *, within_s: float
) -> list[str]:
    """Compare files and write the replies, on a worker; return what is wrong."""
    different = [
        f"{path} {'is another file' if stamp(Path(path)) else 'does not exist'} there"
        for path, expected in reads.items()
        if not _becomes_true(partial(_has_stamp, Path(path), expected), within_s)
    ]
    return different + [problem for folder in writes if (problem := _reply(folder, token, worker_id, within_s))]


def _has_stamp(path: Path, expected: Stamp) -> bool:
    return stamp(path) == expected


def _reply(folder: str, token: str, worker_id: str, within_s: float) -> str | None:
    if not _becomes_true(probe_path(folder, token).exists, within_s):
        return f"a file that the command wrote into {folder} does not exist there"
    try:
        probe_path(folder, token, worker_id).touch()
    except OSError as problem:
        return f"{folder} cannot be written there ({problem.strerror})"
    return None


def problem_of_replies(writes: Sequence[str], token: str, worker_id: str, *, within_s: float) -> str | None:
    """Look for the replies of a worker, where the command runs; return what is wrong."""
    for folder in writes:
        if not _becomes_true(probe_path(folder, token, worker_id).exists, within_s):
            return f"a file that it wrote into {folder} does not exist here"
    return None


def _becomes_true(condition: Callable[[], bool], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while not condition():
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_S)
    return True
