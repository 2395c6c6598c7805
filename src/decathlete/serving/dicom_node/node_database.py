"""The SQLite database of a DICOM node, in a folder that only its user can read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decathlete.errors import OutputError
from decathlete.serving.database_errors import end_transaction, translate_database_error
from decathlete.serving.storage import make_private_folder

DATABASE = "node.sqlite"
"""File of the database in the folder of a node."""

_VERSION = 1
_SCHEMA = f"""
BEGIN;
CREATE TABLE instances (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    sop_uid TEXT NOT NULL UNIQUE,
    series_uid TEXT NOT NULL,
    study_uid TEXT NOT NULL,
    digest TEXT NOT NULL,
    file TEXT NOT NULL,
    n_bytes INTEGER NOT NULL,
    origin TEXT NOT NULL,
    received REAL NOT NULL
);
CREATE INDEX instances_by_series ON instances (series_uid);
CREATE INDEX instances_by_study ON instances (study_uid);
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    unit TEXT NOT NULL,
    unit_uid TEXT NOT NULL,
    models TEXT NOT NULL,
    origin TEXT NOT NULL,
    content TEXT NOT NULL UNIQUE,
    last_instance INTEGER NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    starts INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt REAL NOT NULL DEFAULT 0,
    received_again REAL,
    sources TEXT,
    reason TEXT
);
CREATE INDEX jobs_by_unit ON jobs (unit_uid);
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_ADDED = """
CREATE TABLE IF NOT EXISTS copies (
    series_uid TEXT NOT NULL,
    n_instances INTEGER NOT NULL,
    starts INTEGER NOT NULL,
    PRIMARY KEY (series_uid, n_instances)
);
CREATE INDEX IF NOT EXISTS instances_by_size ON instances (n_bytes);
CREATE INDEX IF NOT EXISTS instances_by_age ON instances (received);
"""
_BUSY_S = 30.0


def open_database(folder: Path) -> sqlite3.Connection:
    """Open the database of a node, or create it; every change is on the disk when a statement returns.

    Raises:
        OutputError: the database cannot be written, is damaged, or was made by another version of Decathlete.
    """
    make_private_folder(folder)
    path = folder / DATABASE
    with translate_database_error(path):
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=_BUSY_S)
        database.row_factory = sqlite3.Row
        try:
            for setting in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
                database.execute(f"PRAGMA {setting}")
            _check_version(database, path)
            database.executescript(_ADDED)
        except BaseException:
            database.close()
            raise
    return database


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Make all changes within, or none after an error; the caller holds the lock of the database."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        end_transaction(database)
        raise


def _check_version(database: sqlite3.Connection, path: Path) -> None:
    if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone() is None:
        database.executescript(_SCHEMA)
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version != _VERSION:
        raise OutputError(
            f"is the database of a DICOM node of another version of Decathlete (format {version}, not {_VERSION})",
            where=path,
            remedy="start the service with another --data, or with the version of Decathlete that made it",
        )
