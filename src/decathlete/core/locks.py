"""Locks of folders: one process writes to a folder at a time, and a store that is read is not replaced.

A lock is an operating-system lock (``flock``) on a small hidden file, so that it ends with its process, also after
SIGKILL. The file names the process (pid, host, since when) for the message of others, and is removed at the end. A lock
is reentrant in the thread that holds it; another thread is treated like another process.

No two commands wait for each other: locks of results never wait, and a lock that waits is requested in the order store,
then the folder of all prepared data of the dataset.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from decathlete.core.documents import read_json
from decathlete.core.files import output_code, remove_partials
from decathlete.core.output_paths import writable_folder
from decathlete.errors import DecathleteError, OutputError

LOCK_NAME = ".decathlete-lock"
"""Name of the lock file in a folder; ``.decathlete-lock-NAME`` beside ``NAME`` for what is replaced as a whole."""
READER_PREFIX = ".decathlete-reader"
"""Prefix of the lock files of the processes that read a store, beside the store."""

_AT_ONCE_S = 0.5
"""How long a lock that does not wait is requested, seconds: others may hold it for a moment, to look at the folder."""
_POLL_S = 0.2
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_REMEDY = "wait until it has finished, end it, or use another folder"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The process that holds a lock.

    Attributes:
        pid: its number on its host.
        host: name of the host.
        since: time at which it took the lock, UTC, ISO 8601.
    """

    pid: int
    host: str
    since: str

    @classmethod
    def this_process(cls) -> Self:
        """Return the owner of a lock that this process takes now."""
        return cls(pid=os.getpid(), host=socket.gethostname(), since=datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read the owner from a lock file; ``None`` if it has not been written yet."""
        try:
            content = read_json(path)
            return cls(pid=int(content["pid"]), host=str(content["host"]), since=str(content["since"]))
        except (DecathleteError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Write the owner into a lock file. The lock holds without it, so that a full disk is no error here."""
        with suppress(OSError):
            path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def __str__(self) -> str:
        return f"pid {self.pid}, host {self.host}, since {self.since}"


class _HeldLocks(threading.local):
    """The lock files that the current thread holds."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()


_held = _HeldLocks()


@contextmanager
def locked_folder(folder: Path, *, wait_for: str | None = None) -> Iterator[Path]:
    """Create ``folder`` if need be, lock it for writing, and remove what killed processes left unfinished in it.

    Args:
        folder: folder that is written to.
        wait_for: what the other process does to the folder, a past participle such as ``"prepared"``: wait until it has
            finished. ``None``: do not wait.

    Raises:
        OutputError: another process works in the folder, or it cannot be written, or lies in a raw dataset.
    """
    writable_folder(folder)
    with _locked(folder / LOCK_NAME, folder, wait_for):
        remove_partials(folder)
        yield folder


@contextmanager
def locked_output(path: Path, *, wait_for: str | None = None) -> Iterator[Path]:
    """Lock ``path``, which is replaced as a whole, and remove what killed processes left beside it.

    Args:
        path: file or folder that is written; its parent folder is created if need be.
        wait_for: see :func:`locked_folder`.

    Raises:
        OutputError: another process writes it, its parent folder cannot be written or lies in a raw dataset, or it is
            the current folder.
    """
    if path.name in ("", ".."):
        raise OutputError("cannot be replaced as a whole", where=path, remedy="name a new file or folder")
    writable_folder(path.parent)
    with _locked(_beside(path), path, wait_for):
        remove_partials(path.parent, path.name)
        yield path


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Keep other processes from replacing the store ``folder``; wait while it is being prepared.

    Any number of processes read a store side by side. A store on a read-only disk, or in a folder of someone else, is
    read without a lock: nobody who can write to it is warned.

    Raises:
        OutputError: the lock cannot be written, although the folder can.
    """
    if not folder.is_dir() or not os.access(folder.parent, os.W_OK):
        yield
        return
    name = f"{READER_PREFIX}-{folder.name}-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        with _locked(_beside(folder), folder, "prepared"):
            with suppress(OutputError):  # others read the store, too
                require_no_readers(folder)
            stack.enter_context(_locked(folder.with_name(name), folder, None))
        yield


def require_no_readers(folder: Path) -> None:
    """Check that no other process reads the store ``folder``, whose lock the caller holds, before it is replaced.

    Lock files of processes that were killed are removed.

    Raises:
        OutputError: a process reads it.
    """
    readers: list[OutputError] = []
    for path in folder.parent.glob(f"{READER_PREFIX}-*"):
        if path.name[:-9] == f"{READER_PREFIX}-{folder.name}" and _resolve(path) not in _held.paths:
            try:
                with _locked(path, folder, None, doing="is reading it", at_once_s=0):
                    pass
            except OutputError as problem:
                readers.append(problem)
    if readers:
        raise readers[0]


def _resolve(path: Path) -> Path:
    """Return one path for all spellings of a lock file, which is no link itself."""
    return path.parent.resolve() / path.name


def _beside(path: Path) -> Path:
    return path.with_name(f"{LOCK_NAME}-{path.name}")


@contextmanager
def _locked(
    path: Path, where: Path, wait_for: str | None, *, doing: str = "is working here", at_once_s: float = _AT_ONCE_S
) -> Iterator[None]:
    """Hold the lock file ``path``; the caller's thread may hold it already."""
    path = _resolve(path)
    if path in _held.paths:
        yield
        return
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    if not _acquire(lock, path, where, wait_for, doing, at_once_s):
        yield
        return
    Owner.this_process().write(path)
    _held.paths.add(path)
    try:
        yield
    finally:
        _held.paths.remove(path)
        with suppress(OSError):
            path.unlink()  # while it is locked: whoever opened it before sees that it is gone, and makes a new one
        lock.release()


def _acquire(lock: FileLock, path: Path, where: Path, wait_for: str | None, doing: str, at_once_s: float) -> bool:
    """Acquire the lock; return ``False`` where the file system has no locks.

    Raises:
        OutputError: another process holds it and ``wait_for`` is ``None``, or the file cannot be written.
    """
    try:
        _acquire_or_wait(lock, path, where, wait_for, at_once_s)
    except Timeout:
        raise OutputError(
            f"another process{_describe(path)} {doing}", where=where, remedy=_REMEDY, code="E-OUTPUT-LOCKED"
        ) from None
    except OSError as problem:
        if problem.errno not in _NO_LOCKS:
            raise OutputError(
                f"cannot be locked ({problem.strerror})",
                where=where,
                remedy="choose a folder that you may write to",
                code=output_code(problem),
            ) from problem
        log.warning("%s: its file system has no locks; do not let two commands write to it at once", where)
        return False
    return True


def _acquire_or_wait(lock: FileLock, path: Path, where: Path, wait_for: str | None, at_once_s: float) -> None:
    try:
        lock.acquire(timeout=at_once_s)
    except Timeout:
        if wait_for is None:
            raise
        log.info("waiting until another process%s has %s %s", _describe(path), wait_for, where)
        lock.acquire(poll_interval=_POLL_S)


def _describe(path: Path) -> str:
    owner = Owner.read(path)
    return f" ({owner})" if owner else ""
