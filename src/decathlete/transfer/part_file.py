"""A partly downloaded file: the bytes so far, and beside them a note on the whole file."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from decathlete.core.documents import read_json
from decathlete.core.files import remove, write_json
from decathlete.errors import DecathleteError, OutputError

if sys.platform != "win32":
    import fcntl


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """The facts that the server gave about the whole file.

    Attributes:
        size: bytes; ``None`` if no server gave the size.
        validator: the server's identifier of this version of the file (``ETag`` or ``Last-Modified``).
        source: digest of the address to which the validator belongs (an address may contain a secret).
    """

    size: int | None = None
    validator: str | None = None
    source: str | None = None


class PartFile:
    """The file ``<name>.part`` and its note ``<name>.part.json``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        """Number of bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def remote(self) -> RemoteFile:
        """The content of the note; empty if it cannot be read."""
        try:
            note = read_json(self._note)
            size, validator, source = note["size"], note["validator"], note["source"]
        except (DecathleteError, KeyError, TypeError):
            return RemoteFile()
        return RemoteFile(
            size=size if isinstance(size, int) else None,
            validator=validator if isinstance(validator, str) else None,
            source=source if isinstance(source, str) else None,
        )

    @property
    def is_complete(self) -> bool:
        """Whether all bytes that the server announced are present."""
        return self.remote.size is not None and self.size == self.remote.size

    def write_note(self, remote: RemoteFile) -> None:
        """Write the note, before the first byte is appended."""
        if remote != self.remote:
            write_json(self._note, {"size": remote.size, "validator": remote.validator, "source": remote.source})

    def start_over(self) -> None:
        """Discard the bytes so far."""
        if self.path.exists():
            os.truncate(self.path, 0)
        remove(self._note)

    def remove(self) -> None:
        """Remove the file and its note."""
        remove(self.path)
        remove(self._note)

    def md5(self) -> str:
        """Return the MD5 of the bytes so far, hexadecimal."""
        return md5_of(self.path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Prevent other processes from writing to the file; an empty file is removed at the end.

        Raises:
            OutputError: another process has the lock.
        """
        with self.path.open("ab") as stream:
            if not _acquire_lock(stream.fileno()):
                raise OutputError(
                    "is being downloaded by another process",
                    where=self.path,
                    remedy="wait until it has finished",
                    code="E-OUTPUT-LOCKED",
                )
            try:
                yield
            finally:
                if self.size == 0:
                    self.remove()


def md5_of(path: Path) -> str:
    """Return the MD5 of a file's bytes, hexadecimal: the checksum that the Decathlon publishes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _acquire_lock(descriptor: int) -> bool:
    """Return whether this process has the lock now; the system releases it even if the process is killed."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks
    return True
