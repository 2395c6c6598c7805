"""A file that is still coming: the bytes so far, and beside them what the server said of the whole."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from decathlete.core.files import remove, write_json
from decathlete.errors import OutputError

if sys.platform != "win32":
    import fcntl


@dataclass(frozen=True, kw_only=True)
class Whole:
    """What is known of the whole file.

    Attributes:
        size: in bytes, or None if no server has said.
        validator: the server's own name for these very bytes (``ETag`` or ``Last-Modified``), to ask for their rest.
        source: digest of the address that the validator belongs to (an address may carry a secret).
    """

    size: int | None = None
    validator: str | None = None
    source: str | None = None


class PartFile:
    """``<name>.part`` and its note ``<name>.part.json``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def whole(self) -> Whole:
        """What the note says; nothing, if it cannot be read."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            size, validator, source = note["size"], note["validator"], note["source"]
        except (OSError, ValueError, KeyError, TypeError):
            return Whole()
        return Whole(
            size=size if isinstance(size, int) else None,
            validator=validator if isinstance(validator, str) else None,
            source=source if isinstance(source, str) else None,
        )

    @property
    def complete(self) -> bool:
        """Whether all bytes that the server announced are there."""
        return self.whole.size is not None and self.size == self.whole.size

    def expect(self, whole: Whole) -> None:
        """Remember what is coming, before its first byte."""
        if whole != self.whole:
            write_json(self._note, {"size": whole.size, "validator": whole.validator, "source": whole.source})

    def start_over(self) -> None:
        """Forget the bytes so far."""
        if self.path.exists():
            os.truncate(self.path, 0)
        remove(self._note)

    def remove(self) -> None:
        """Leave nothing."""
        remove(self.path)
        remove(self._note)

    def md5(self) -> str:
        """MD5 of the bytes so far, hexadecimal."""
        return md5_of(self.path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No second process writes to it meanwhile; an empty part is not left behind.

        Raises:
            OutputError: a second process does.
        """
        with self.path.open("ab") as stream:
            if not _lock(stream.fileno()):
                raise OutputError(
                    "is being downloaded by another process",
                    where=self.path,
                    remedy="wait until that one is done",
                    code="E-OUTPUT-LOCKED",
                )
            try:
                yield
            finally:
                if self.size == 0:
                    self.remove()


def md5_of(path: Path) -> str:
    """MD5 of a file's bytes, hexadecimal: against accidents and mix-ups, as the Decathlon publishes it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _lock(descriptor: int) -> bool:
    """Whether this process alone has the file now; the system lets go of it even when the process is killed."""
    if sys.platform != "win32":
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system without locks: go on as if alone
    return True
