"""Instances and jobs of a DICOM node in SQLite and files; every change is on the disk when a method returns.

A job belongs to a *unit*: a series, or a study whose series are the channels of a model.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from decathlete.core.files import atomic_path, remove
from decathlete.serving.dicom_node.choice import Unit
from decathlete.serving.dicom_node.node_job import NodeJob, NodeJobState, Origin

_SCHEMA = """
CREATE TABLE IF NOT EXISTS instances (
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
CREATE INDEX IF NOT EXISTS instances_by_series ON instances (series_uid);
CREATE INDEX IF NOT EXISTS instances_by_study ON instances (study_uid);
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    unit_uid TEXT NOT NULL,
    origin TEXT NOT NULL,
    content TEXT NOT NULL UNIQUE,
    last_instance INTEGER NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    starts INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt REAL NOT NULL DEFAULT 0,
    sources TEXT,
    reason TEXT
);
"""
_BUSY_S = 30.0


class NodeStore:
    """The state of a node; safe to use from several threads.

    Args:
        folder: of the database and the files.
        unit: what one job segments.
    """

    def __init__(self, folder: Path, *, unit: Unit = "series") -> None:
        self.folder = folder
        self._unit = f"{unit}_uid"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._database = sqlite3.connect(
            folder / "node.sqlite", check_same_thread=False, isolation_level=None, timeout=_BUSY_S
        )
        self._database.row_factory = sqlite3.Row
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("PRAGMA secure_delete = ON")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def add_instance(
        self, content: bytes, *, sop_uid: str, series_uid: str, study_uid: str, origin: Origin, now: float
    ) -> bool:
        """Store an instance; return whether it is new or has new content. Copies change nothing.

        Raises:
            OutputError: the disk cannot be written.
        """
        digest = hashlib.sha256(content).hexdigest()
        with self._lock:
            rows = self._rows("SELECT digest FROM instances WHERE sop_uid = ?", sop_uid)
            if rows and rows[0]["digest"] == digest:
                return False
            file = f"{_name(series_uid)}/{_name(sop_uid)}-{digest[:8]}.dcm"
            path = self.folder / "series" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as partial:
                partial.write_bytes(content)
            self._database.execute(
                "INSERT OR REPLACE INTO instances "
                "(sop_uid, series_uid, study_uid, digest, file, n_bytes, origin, received) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (sop_uid, series_uid, study_uid, digest, file, len(content), origin, now),
            )
        return True

    def count_instances(self, series_uid: str) -> int:
        """Return the number of stored instances of a series."""
        return int(self._rows("SELECT COUNT(*) AS n FROM instances WHERE series_uid = ?", series_uid)[0]["n"])

    def stored_bytes(self) -> int:
        """Return the size of all instances."""
        return int(self._rows("SELECT COALESCE(SUM(n_bytes), 0) AS n FROM instances")[0]["n"])

    def files(self, unit_uid: str) -> tuple[Path, ...]:
        """Return the files of a unit."""
        rows = self._rows(f"SELECT file FROM instances WHERE {self._unit} = ? ORDER BY file", unit_uid)
        return tuple(self.folder / "series" / row["file"] for row in rows)

    def content_of(self, unit_uid: str) -> str:
        """Return the digest of the instances of a unit that are stored now."""
        statement = f"SELECT sop_uid, digest FROM instances WHERE {self._unit} = ? ORDER BY sop_uid"
        lines = [self._unit, unit_uid, *(f"{r['sop_uid']} {r['digest']}" for r in self._rows(statement, unit_uid))]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def open_jobs(self, *, quiet_since: float, busy: frozenset[str], now: float) -> int:
        """Make a job for each unit that is complete and has instances that no job has seen; return their number.

        Args:
            quiet_since: time since which no instance of the unit may have arrived.
            busy: series of associations that are open.
        """
        n_new = 0
        with self._lock:
            waiting = {uid for series_uid in busy for uid in self._units_of(series_uid)}
            quiet = self._rows(
                f"SELECT {self._unit} AS uid, MAX(origin) AS origin, MAX(number) AS last FROM instances "
                f"GROUP BY {self._unit} HAVING MAX(received) <= ? "
                f"AND last > COALESCE((SELECT MAX(last_instance) FROM jobs WHERE unit_uid = {self._unit}), 0)",
                quiet_since,
            )
            for row in (one for one in quiet if one["uid"] not in waiting):
                made = self._database.execute(
                    "INSERT OR IGNORE INTO jobs (unit_uid, origin, content, last_instance, state, created) "
                    "VALUES (?, ?, ?, ?, 'queued', ?)",
                    (row["uid"], row["origin"], self.content_of(row["uid"]), row["last"], now),
                )
                n_new += made.rowcount
        return n_new

    def next_job(self, state: NodeJobState, *, now: float = float("inf")) -> NodeJob | None:
        """Return the oldest job in a state whose next attempt is due."""
        rows = self._rows(
            "SELECT * FROM jobs WHERE state = ? AND next_attempt <= ? ORDER BY next_attempt, number LIMIT 1", state, now
        )
        return NodeJob.of(rows[0]) if rows else None

    def jobs(self) -> tuple[NodeJob, ...]:
        """Return all jobs in the order in which they were made."""
        return tuple(NodeJob.of(row) for row in self._rows("SELECT * FROM jobs ORDER BY number"))

    def count_start(self, job: NodeJob) -> None:
        """Count that the computation of a job begins."""
        self._execute("UPDATE jobs SET starts = starts + 1 WHERE number = ?", job.number)

    def claim_sources(self, job: NodeJob, sources: Sequence[Path]) -> int | None:
        """Record which stored files a job segments; return the number of a job that segmented the same ones, if any."""
        digest = hashlib.sha256("\n".join(sorted(file.name for file in sources)).encode()).hexdigest()
        with self._lock:
            done = self._rows(
                "SELECT number FROM jobs WHERE sources = ? AND number != ? AND state IN ('computed', 'sent')",
                digest,
                job.number,
            )
            if not done:
                self._execute("UPDATE jobs SET sources = ? WHERE number = ?", digest, job.number)
        return int(done[0]["number"]) if done else None

    def finish(self, job: NodeJob, state: NodeJobState, reason: str | None = None) -> None:
        """Set the state of a job."""
        self._execute("UPDATE jobs SET state = ?, reason = ? WHERE number = ?", state, reason, job.number)

    def postpone(self, job: NodeJob, until: float) -> None:
        """Send the results of a job again later."""
        self._execute("UPDATE jobs SET attempts = attempts + 1, next_attempt = ? WHERE number = ?", until, job.number)

    def job_folder(self, job: NodeJob) -> Path:
        """Return the folder of a job's input and results."""
        return self.folder / "jobs" / str(job.number)

    def delete_old(self, before: float) -> int:
        """Delete units and jobs that are finished and older than a time; return the number of units."""
        with self._lock:
            old = self._rows(
                f"SELECT {self._unit} AS uid FROM instances WHERE {self._unit} NOT IN "
                "(SELECT unit_uid FROM jobs WHERE state IN ('queued', 'computed')) "
                f"GROUP BY {self._unit} HAVING MAX(received) < ?",
                before,
            )
            for row in old:
                self._delete(row["uid"])
        return len(old)

    def _delete(self, unit_uid: str) -> None:
        for job in (one for one in self.jobs() if one.unit_uid == unit_uid):
            remove(self.job_folder(job))
        series = self._rows(f"SELECT DISTINCT series_uid FROM instances WHERE {self._unit} = ?", unit_uid)
        for row in series:
            remove(self.folder / "series" / _name(row["series_uid"]))
        self._database.execute("DELETE FROM jobs WHERE unit_uid = ?", (unit_uid,))
        self._database.execute(f"DELETE FROM instances WHERE {self._unit} = ?", (unit_uid,))

    def _units_of(self, series_uid: str) -> list[str]:
        rows = self._rows(f"SELECT DISTINCT {self._unit} AS uid FROM instances WHERE series_uid = ?", series_uid)
        return [row["uid"] for row in rows]

    def _rows(self, statement: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()

    def _execute(self, statement: str, *values: object) -> None:
        with self._lock:
            self._database.execute(statement, values)


def _name(uid: str) -> str:
    """Return a name of a file that contains nothing of an identifier."""
    return hashlib.sha256(uid.encode()).hexdigest()[:24]
