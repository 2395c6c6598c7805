"""The queue of jobs in SQLite: a job that was accepted is finished once, also if the service is killed meanwhile.

Every change is one transaction that is on the disk when the method returns (``synchronous = FULL``). States::

    queued -> running -> done | failed        a restart returns running jobs to queued

A deleted job has no row; :meth:`JobStore.publish` then reports that its result is not wanted.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from decathlete.core.documents import parse_json
from decathlete.serving.database_errors import end_transaction, translate_database_error

JobState = Literal["queued", "running", "done", "failed", "cancelled"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    model TEXT NOT NULL,
    input_kind TEXT NOT NULL,
    created REAL NOT NULL,
    expires REAL NOT NULL,
    started REAL,
    finished REAL,
    starts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    warnings TEXT NOT NULL DEFAULT '[]',
    volumes_ml TEXT NOT NULL DEFAULT '{}',
    voxels TEXT NOT NULL DEFAULT '{}',
    is_awaited INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number);
"""
_ADDED = {"voxels": "TEXT NOT NULL DEFAULT '{}'", "is_awaited": "INTEGER NOT NULL DEFAULT 0"}
"""Columns that databases of earlier versions lack."""

_RECENT = 20
_BUSY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class JobError:
    """Why a job failed, for the person who sent the image."""

    code: str
    message: str
    remedy: str | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, as the queue knows it.

    Attributes:
        id: random, 32 hexadecimal digits.
        number: order of acceptance.
        model: name in the service.
        input_kind: ``nifti``, ``nrrd``, ``metaimage``, ``dicom``, or the name of another image format.
        created, expires, started, finished: seconds since 1970.
        starts: how many times its computation was started.
        warnings: about the image and what its upload contained; of a finished job, also about its result.
        volumes_ml: structure -> volume, mL; empty if the image has no spacing.
        voxels: structure -> number of voxels.
        is_awaited: whether its sender waits for the result and deletes it then.
    """

    id: str
    number: int
    state: JobState
    model: str
    input_kind: str
    created: float
    expires: float
    started: float | None = None
    finished: float | None = None
    starts: int = 0
    error: JobError | None = None
    warnings: tuple[str, ...] = ()
    volumes_ml: Mapping[str, float]
    voxels: Mapping[str, int]
    is_awaited: bool = False

    @property
    def is_finished(self) -> bool:
        """Whether its state is final."""
        return self.state in ("done", "failed", "cancelled")


class JobStore:
    """The queue in one SQLite file; safe to use from several threads.

    Args:
        path: of the database, which is created if need be.
        clock: seconds since 1970.

    Raises:
        OutputError: here and in all methods, the database cannot be written, or is damaged.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.clock, self._path = clock, path
        self._lock = threading.RLock()
        path.touch(mode=0o600)
        path.chmod(0o600)  # one of an earlier version; SQLite's other files get the same mode
        with translate_database_error(path):
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=_BUSY_S)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA secure_delete = ON")
            self._connection.executescript(_SCHEMA)
            columns = {column["name"] for column in self._connection.execute("PRAGMA table_info(jobs)")}
            for name in _ADDED.keys() - columns:
                self._connection.execute(f"ALTER TABLE jobs ADD COLUMN {name} {_ADDED[name]}")

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def add(
        self,
        job_id: str,
        *,
        model: str,
        input_kind: str,
        keep_seconds: float,
        warnings: Sequence[str] = (),
        is_awaited: bool = False,
    ) -> Job:
        """Append a job to the queue; it is durable when this returns."""
        now = self.clock()
        with self._transaction() as database:
            database.execute(
                "INSERT INTO jobs (id, state, model, input_kind, created, expires, warnings, is_awaited) "
                "VALUES (?, 'queued', ?, ?, ?, ?, ?, ?)",
                (job_id, model, input_kind, now, now + keep_seconds, json.dumps(list(warnings)), is_awaited),
            )
        job = self.get(job_id)
        assert job is not None  # for the type checker: it was added
        return job

    def get(self, job_id: str) -> Job | None:
        """Return a job; ``None``: there is none, or it was deleted."""
        rows = self._query("SELECT * FROM jobs WHERE id = ?", job_id)
        return _job(rows[0]) if rows else None

    def ids(self) -> set[str]:
        """Return the ids of all jobs."""
        return {row["id"] for row in self._query("SELECT id FROM jobs")}

    def delete_awaited(self) -> None:
        """Remove the jobs whose senders wait for them: after a restart, nobody does."""
        with self._transaction() as database:
            database.execute("DELETE FROM jobs WHERE is_awaited")

    def take_next(self) -> Job | None:
        """Make the job that waits longest the running one; ``None``: none waits. It may still wait for its model."""
        with self._transaction() as database:
            row = database.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1").fetchone()
            if row is None:
                return None
            database.execute("UPDATE jobs SET state = 'running' WHERE id = ?", (row["id"],))
        return self.get(row["id"])

    def count_start(self, job_id: str) -> None:
        """Record that the computation of a running job begins."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET started = ?, starts = starts + 1 WHERE id = ? AND state = 'running'",
                (self.clock(), job_id),
            )

    def requeue_running(self) -> int:
        """Return jobs that were running when the service ended to the queue, at their old places."""
        with self._transaction() as database:
            cursor = database.execute("UPDATE jobs SET state = 'queued', started = NULL WHERE state = 'running'")
        return cursor.rowcount

    def put_back(self, job: Job) -> None:
        """Return a running job to its place in the queue; a start since ``job`` was taken does not count."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET state = 'queued', started = NULL, starts = ? WHERE id = ? AND state = 'running'",
                (job.starts, job.id),
            )

    def publish(
        self, job_id: str, *, volumes_ml: Mapping[str, float], voxels: Mapping[str, int], warnings: Sequence[str]
    ) -> bool:
        """Finish a running job; ``False``: it was deleted meanwhile, and its result must not be kept."""
        return self._finish(
            job_id,
            "done",
            volumes_ml=json.dumps(dict(volumes_ml)),
            voxels=json.dumps(dict(voxels)),
            warnings=json.dumps(list(warnings)),
            error=None,
        )

    def fail(self, job_id: str, error: JobError) -> bool:
        """Finish a running job with an error; ``False``: it was deleted meanwhile."""
        return self._finish(job_id, "failed", volumes_ml="{}", error=json.dumps(vars(error)))

    def delete(self, job_id: str) -> Job | None:
        """Remove a job whatever its state; return what it was."""
        with self._transaction() as database:
            job = self.get(job_id)
            database.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        return job

    def expired(self) -> list[str]:
        """Return the ids of the jobs that are to be deleted now."""
        return [row["id"] for row in self._query("SELECT id FROM jobs WHERE expires <= ?", self.clock())]

    def count(self) -> dict[str, int]:
        """Return the number of jobs in each state."""
        counts = dict.fromkeys(("queued", "running", "done", "failed"), 0)
        return counts | {
            r["state"]: r["n"] for r in self._query("SELECT state, count(*) AS n FROM jobs GROUP BY state")
        }

    def position(self, job: Job) -> int:
        """Return the place of a queued job, 1: the next one; 0 for every other job."""
        if job.state != "queued":
            return 0
        query = "SELECT count(*) AS n FROM jobs WHERE state = 'queued' AND number <= ?"
        return int(self._query(query, job.number)[0]["n"])

    def mean_seconds(self) -> float | None:
        """Return the mean duration of the jobs that were finished last; ``None``: there is none yet."""
        query = (
            "SELECT avg(seconds) AS mean FROM (SELECT finished - started AS seconds FROM jobs "
            "WHERE state = 'done' ORDER BY number DESC LIMIT ?)"
        )
        mean = self._query(query, _RECENT)[0]["mean"]
        return None if mean is None else float(mean)

    def _finish(self, job_id: str, state: JobState, **fields: str | None) -> bool:
        names = ", ".join(f"{name} = ?" for name in fields)
        with self._transaction() as database:
            cursor = database.execute(
                f"UPDATE jobs SET state = ?, finished = ?, {names} WHERE id = ? AND state = 'running'",
                (state, self.clock(), *fields.values(), job_id),
            )
        return cursor.rowcount == 1

    def _query(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock, translate_database_error(self._path):
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, translate_database_error(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                end_transaction(self._connection)
                raise


def _job(row: sqlite3.Row) -> Job:
    fields: dict[str, Any] = dict(row)
    error = fields.pop("error")
    fields["is_awaited"] = bool(fields["is_awaited"])
    fields["warnings"] = tuple(parse_json(fields["warnings"]))
    fields |= {name: parse_json(fields[name]) for name in ("volumes_ml", "voxels")}
    return Job(**fields, error=JobError(**parse_json(error)) if error else None)
