"""Errors of SQLite as errors of the service: a full disk is one, whatever SQLite calls it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decathlete.core.machine import free_disk_bytes
from decathlete.errors import OutputError

_FULL_BYTES = 1 << 20
"""Free bytes with which a disk is full for a database, which also needs space for its journal."""


@contextmanager
def translate_database_error(path: Path) -> Iterator[None]:
    """Raise an :class:`OutputError` in place of an error of the database at ``path``."""
    try:
        yield
    except sqlite3.OperationalError as problem:
        if problem.sqlite_errorcode == sqlite3.SQLITE_FULL or free_disk_bytes(path.parent) < _FULL_BYTES:
            raise OutputError(
                "cannot be written: the disk is full", where=path, remedy="free disk space", code="E-DISK-FULL"
            ) from problem
        raise OutputError(
            f"cannot be used ({problem})", where=path, remedy="use a --data folder that you may write to"
        ) from problem
    except sqlite3.DatabaseError as problem:
        if problem.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise  # it was used wrongly
        raise OutputError(
            f"is damaged ({problem})", where=path, remedy="restore it, or start the service with another --data"
        ) from problem


def end_transaction(database: sqlite3.Connection) -> None:
    """Undo the changes of a transaction, if SQLite did not do so already, as it does when the disk is full."""
    if database.in_transaction:
        database.execute("ROLLBACK")
