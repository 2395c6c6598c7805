"""Instances and jobs of a DICOM node in SQLite and files; every change is on the disk when a method returns.

A job belongs to a *unit*: a series, or a study whose series are the channels of a model. To make room, the files of
finished units are deleted; their instances stay in the database, so that copies of them start no second job. Such an
instance has an empty ``file``, until a copy of it arrives.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple
from pathlib import Path

from decathlete.core.files import remove
from decathlete.serving.database_errors import translate_database_error
from decathlete.serving.dicom_node.choice import Unit
from decathlete.serving.dicom_node.instance_files import InstanceFiles, StagedInstance, StoredInstance
from decathlete.serving.dicom_node.node_database import DATABASE, open_database, transaction
from decathlete.serving.dicom_node.node_job import NodeJob, NodeJobState

_LEAST_FREE_BYTES = 10**9


class NodeStore:
    """The state of a node; safe to use from several threads.

    Args:
        folder: of the database and the files.
        unit: what one job segments.
        digests: of the models; another model has jobs of its own for the same instances.

    Raises:
        OutputError: the database was made by another version of Decathlete.
    """

    def __init__(self, folder: Path, *, unit: Unit = "series", digests: Sequence[str] = ()) -> None:
        self.folder = folder
        self._unit = f"{unit}_uid"
        self._models = hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
        self._lock = threading.RLock()
        self._database = open_database(folder)
        self._files = InstanceFiles(folder / "series")
        self._files.remove_unknown({row["file"] for row in self._rows("SELECT file FROM instances")})
        # units with instances that may have no job yet: to look at all instances all the time would take seconds
        self._changed = {row["uid"] for row in self._rows(f"SELECT DISTINCT {self._unit} AS uid FROM instances")}

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def arriving(self) -> AbstractContextManager[Path]:
        """Provide a folder for instances while they arrive, for :meth:`register`; other threads do not wait meanwhile.

        Raises:
            OutputError: the disk cannot be written.
        """
        return self._files.arriving()

    def register(self, staged: Iterable[StagedInstance], *, now: float) -> int:
        """Store all instances or, after an error, none; return how many are new or have new content.

        A copy of a stored instance changes nothing, but a failed job of its unit is computed again. Other threads may
        use the store while the files are written to the disk.

        Raises:
            OutputError: the disk cannot be written.
        """
        instances = list(staged)
        self._files.sync(instances)  # without the lock, so that others are stored meanwhile
        replaced: list[str] = []
        n_new = 0
        with self._lock:
            missing = [one for one in instances if not self._file_of(one.row)]
            try:
                self._files.move(missing)
                with translate_database_error(self.folder / DATABASE), transaction(self._database):
                    for one in instances:
                        file = self._file_of(one.row)
                        if file is None:
                            n_new += 1
                            replaced += self._insert(one.row, now)
                        else:
                            self._note_copy(one.row, now, is_restored=not file)
            except BaseException:
                self._files.remove(one.row.file for one in missing)
                raise
            self._files.remove(replaced)
        return n_new

    def count_instances(self, series_uid: str) -> int:
        """Return the number of stored instances of a series, with those whose files no job needs."""
        units = self._rows(
            f"SELECT {self._unit} AS uid, COUNT(*) AS n, SUM(file != '') AS n_files FROM instances "
            f"WHERE series_uid = ? GROUP BY {self._unit}",
            series_uid,
        )
        return sum(row["n_files" if self._needs_files(row["uid"]) else "n"] for row in units)

    def _needs_files(self, unit_uid: str) -> bool:
        """Return whether files that were deleted to make room are needed again."""
        last = self._rows(
            "SELECT state FROM jobs WHERE unit_uid = ? AND models = ? ORDER BY last_instance DESC, number DESC LIMIT 1",
            unit_uid,
            self._models,
        )
        if last and last[0]["state"] == "failed":
            return bool(self.files(unit_uid))  # those of late slices, so it failed without the earlier ones
        return not last or last[0]["state"] not in ("sent", "skipped")

    def is_empty(self) -> bool:
        """Return whether there are neither instances nor jobs."""
        return not self._rows("SELECT number FROM instances UNION ALL SELECT number FROM jobs LIMIT 1")

    def studies_of_archive(self) -> frozenset[str]:
        """Return the studies with instances that were copied from the archive."""
        rows = self._rows("SELECT DISTINCT study_uid FROM instances WHERE origin = 'web'")
        return frozenset(row["study_uid"] for row in rows)

    def stored_bytes(self) -> int:
        """Return the size of all instances."""
        return int(self._rows("SELECT COALESCE(SUM(n_bytes), 0) AS n FROM instances")[0]["n"])

    def make_room(self, n_bytes: int, *, limit_bytes: int, n_staged: int = 0) -> bool:
        """Delete files of finished units, the oldest first, until more bytes can be stored; return whether they can.

        Args:
            limit_bytes: greatest size of all instances. Some of the disk also stays free.
            n_staged: bytes that were written, but not registered yet.
        """
        while (missing := self._missing_bytes(n_bytes, limit_bytes, n_staged)) > 0:
            if not self._delete_finished(missing):
                return False
        return True

    def _missing_bytes(self, n_bytes: int, limit_bytes: int, n_staged: int) -> int:
        beyond_limit = self.stored_bytes() + n_staged + n_bytes - limit_bytes
        return max(beyond_limit, n_bytes + _LEAST_FREE_BYTES - shutil.disk_usage(self.folder).free)

    def _delete_finished(self, n_bytes: int) -> bool:
        """Delete files that no job needs, of the units that were received first, until so many bytes are free.

        A failed job is computed again only if its unit is sent again, so it needs its files only while copies arrive.

        Returns:
            Whether there were as many. If not, nothing is deleted: late slices of a series need its other files.
        """
        with self._lock:
            units = self._rows(
                f"SELECT {self._unit} AS uid, SUM(n_bytes) AS n_bytes FROM instances WHERE {self._unit} NOT IN "
                "(SELECT unit_uid FROM jobs WHERE state IN ('queued', 'computed') "
                "OR (state = 'failed' AND received_again IS NOT NULL)) "
                f"GROUP BY {self._unit} HAVING MAX(file) != '' AND MAX(number) <= "
                f"(SELECT MAX(last_instance) FROM jobs WHERE unit_uid = {self._unit} AND models = ?) "
                "ORDER BY MAX(received)",
                self._models,
            )
            if sum(row["n_bytes"] for row in units) < n_bytes:
                return False
            while n_bytes > 0:
                unit = units.pop(0)
                self._delete_files(unit["uid"])
                n_bytes -= unit["n_bytes"]
        return True

    def _delete_files(self, unit_uid: str) -> None:
        rows = self._rows(f"SELECT file FROM instances WHERE {self._unit} = ? AND file != ''", unit_uid)
        self._execute(f"UPDATE instances SET file = '', n_bytes = 0 WHERE {self._unit} = ?", unit_uid)
        self._files.remove(row["file"] for row in rows)

    def files(self, unit_uid: str) -> tuple[Path, ...]:
        """Return the files of a unit."""
        statement = f"SELECT file FROM instances WHERE {self._unit} = ? AND file != '' ORDER BY file"
        return tuple(self._files.path(row["file"]) for row in self._rows(statement, unit_uid))

    def is_complete(self, unit_uid: str) -> bool:
        """Return whether the files of all instances of a unit are there, so none was deleted to make room."""
        return not self._rows(f"SELECT 1 FROM instances WHERE {self._unit} = ? AND file = '' LIMIT 1", unit_uid)

    def begin_copy(self, series_uid: str, n_instances: int) -> int:
        """Count that the copy of a series begins; return how many began that did not end."""
        statement = (
            "INSERT INTO copies VALUES (?, ?, 1) "
            "ON CONFLICT (series_uid, n_instances) DO UPDATE SET starts = starts + 1 RETURNING starts"
        )
        return int(self._rows(statement, series_uid, n_instances)[0]["starts"])

    def end_copy(self, series_uid: str) -> None:
        """Record that the copy of a series ended: it is stored, or failed with an error."""
        self._execute("DELETE FROM copies WHERE series_uid = ?", series_uid)

    def content_of(self, unit_uid: str) -> str:
        """Return the digest of the models and of the instances of a unit that are stored now."""
        statement = f"SELECT sop_uid, digest FROM instances WHERE {self._unit} = ? ORDER BY sop_uid"
        lines = [self._models, self._unit, unit_uid]
        lines += [f"{r['sop_uid']} {r['digest']}" for r in self._rows(statement, unit_uid)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def open_jobs(self, *, quiet_since: float, busy: frozenset[str], now: float) -> int:
        """Make a job for each unit that is complete and has instances that no job has seen; return their number.

        A failed job whose instances were received again is queued again.

        Args:
            quiet_since: time since which no instance of the unit may have arrived.
            busy: series that are arriving, or their studies.
        """
        n_new = 0
        with self._lock:
            waiting = {*busy, *(uid for series_uid in busy for uid in self._units_of(series_uid))}
            self._queue_again(quiet_since, waiting)
            for uid in sorted(self._changed - waiting):
                new = self._new_instances(uid)
                if new is not None and new["received"] > quiet_since:
                    continue
                if new is not None:
                    n_new += self._execute(
                        "INSERT OR IGNORE INTO jobs "
                        "(unit, unit_uid, models, origin, content, last_instance, state, created) "
                        "VALUES (?, ?, ?, ?, ?, ?, 'queued', ?)",
                        *(self._unit, uid, self._models, new["origin"], self.content_of(uid), new["last"], now),
                    )
                self._changed.remove(uid)
        return n_new

    def _new_instances(self, unit_uid: str) -> sqlite3.Row | None:
        """Describe the instances of a unit, if there are some that no job has seen."""
        found = self._rows(
            f"SELECT MAX(origin) AS origin, MAX(number) AS last, MAX(received) AS received FROM instances "
            f"WHERE {self._unit} = ? GROUP BY {self._unit} HAVING MAX(file) != '' AND last > COALESCE("
            f"(SELECT MAX(last_instance) FROM jobs WHERE unit_uid = ? AND models = ?), 0)",
            unit_uid,
            unit_uid,
            self._models,
        )
        return found[0] if found else None

    def next_job(self, state: NodeJobState, *, now: float = float("inf")) -> NodeJob | None:
        """Return the oldest job in a state whose next attempt is due; queued ones only of the models of this node."""
        rows = self._rows(
            "SELECT * FROM jobs WHERE state = ? AND next_attempt <= ? "
            "AND (state != 'queued' OR (unit = ? AND models = ?)) ORDER BY next_attempt, number LIMIT 1",
            state,
            now,
            self._unit,
            self._models,
        )
        return NodeJob.of(rows[0]) if rows else None

    def jobs(self) -> tuple[NodeJob, ...]:
        """Return all jobs in the order in which they were made."""
        return tuple(NodeJob.of(row) for row in self._rows("SELECT * FROM jobs ORDER BY number"))

    def count_start(self, job: NodeJob) -> None:
        """Count that the computation of a job begins."""
        self._execute("UPDATE jobs SET starts = starts + 1 WHERE number = ?", job.number)

    def reset_starts(self, job: NodeJob) -> None:
        """Forget the starts that were counted since ``job`` was read."""
        self._execute("UPDATE jobs SET starts = ? WHERE number = ?", job.starts, job.number)

    def claim_sources(self, job: NodeJob, sources: Sequence[Path]) -> int | None:
        """Record which stored files a job segments; return the number of a job that segmented the same ones, if any."""
        names = sorted(file.name for file in sources)
        digest = hashlib.sha256("\n".join([self._models, *names]).encode()).hexdigest()
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
        statement = "UPDATE jobs SET state = ?, reason = ?, attempts = 0, next_attempt = 0 WHERE number = ?"
        self._execute(statement, state, reason, job.number)

    def postpone(self, job: NodeJob, until: float) -> None:
        """Compute a job, or send its results, again later; the start counted since ``job`` was read does not count."""
        statement = "UPDATE jobs SET starts = ?, attempts = attempts + 1, next_attempt = ? WHERE number = ?"
        self._execute(statement, job.starts, until, job.number)

    def job_folder(self, job: NodeJob) -> Path:
        """Return the folder of a job's input and results."""
        return self.folder / "jobs" / str(job.number)

    def delete_old(self, before: float) -> int:
        """Delete units that are finished and older than a time, and their jobs; return the number of units."""
        with self._lock:
            old = self._rows(
                f"SELECT DISTINCT {self._unit} AS uid FROM instances AS one INDEXED BY instances_by_age "
                "WHERE received < ? AND "
                f"NOT EXISTS (SELECT 1 FROM instances WHERE {self._unit} = one.{self._unit} AND received >= ?) "
                f"AND {self._unit} NOT IN (SELECT unit_uid FROM jobs "
                "WHERE state = 'computed' OR (state = 'queued' AND unit = ? AND models = ?))",
                before,
                before,
                self._unit,
                self._models,
            )
            for row in old:
                self._delete_instances(row["uid"])
            self._delete_jobs_without_instances()
        return len(old)

    def _delete_instances(self, unit_uid: str) -> None:
        series = self._rows(f"SELECT DISTINCT series_uid FROM instances WHERE {self._unit} = ?", unit_uid)
        for row in series:
            self._files.remove_series(row["series_uid"])
        self._execute(f"DELETE FROM instances WHERE {self._unit} = ?", unit_uid)

    def _delete_jobs_without_instances(self) -> None:
        """Delete jobs, also of other models and other units, except those whose results were not sent yet."""
        rows = self._rows(
            "SELECT * FROM jobs WHERE state != 'computed' AND NOT EXISTS "
            "(SELECT 1 FROM instances WHERE series_uid = jobs.unit_uid OR study_uid = jobs.unit_uid)"
        )
        for job in map(NodeJob.of, rows):
            remove(self.job_folder(job))
            self._execute("DELETE FROM jobs WHERE number = ?", job.number)

    def _file_of(self, row: StoredInstance) -> str | None:
        """Return the file of an instance with the same content, empty if it was deleted; ``None``: there is none."""
        stored = self._rows("SELECT file FROM instances WHERE sop_uid = ? AND digest = ?", row.sop_uid, row.digest)
        return str(stored[0]["file"]) if stored else None

    def _note_copy(self, row: StoredInstance, now: float, *, is_restored: bool) -> None:
        if is_restored:
            statement = "UPDATE instances SET file = ?, n_bytes = ?, received = ? WHERE sop_uid = ?"
            self._execute(statement, row.file, row.n_bytes, now, row.sop_uid)
        uid = self._unit_of(row)
        self._changed.add(uid)
        statement = "UPDATE jobs SET received_again = ? WHERE state = 'failed' AND unit_uid = ? AND models = ?"
        self._execute(statement, now, uid, self._models)

    def _queue_again(self, quiet_since: float, waiting: set[str]) -> None:
        rows = self._rows("SELECT * FROM jobs WHERE state = 'failed' AND received_again <= ?", quiet_since)
        for job in map(NodeJob.of, rows):
            if job.unit_uid in waiting:
                continue
            if job.content == self.content_of(job.unit_uid):
                self._execute("UPDATE jobs SET starts = 0 WHERE number = ?", job.number)
                self.finish(job, "queued")
            self._execute("UPDATE jobs SET received_again = NULL WHERE number = ?", job.number)

    def _insert(self, row: StoredInstance, now: float) -> list[str]:
        """Insert or replace an instance; return the file that is no longer used, if any."""
        old = self._rows("SELECT file FROM instances WHERE sop_uid = ?", row.sop_uid)
        self._execute(
            "INSERT OR REPLACE INTO instances "
            "(sop_uid, series_uid, study_uid, digest, file, n_bytes, origin, received) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *astuple(row),
            now,
        )
        self._changed.add(self._unit_of(row))
        return [one["file"] for one in old if one["file"] not in ("", row.file)]

    def _unit_of(self, row: StoredInstance) -> str:
        return row.series_uid if self._unit == "series_uid" else row.study_uid

    def _units_of(self, series_uid: str) -> list[str]:
        rows = self._rows(f"SELECT DISTINCT {self._unit} AS uid FROM instances WHERE series_uid = ?", series_uid)
        return [row["uid"] for row in rows]

    def _rows(self, statement: str, *values: object) -> list[sqlite3.Row]:
        with self._lock, translate_database_error(self.folder / DATABASE):
            return self._database.execute(statement, values).fetchall()

    def _execute(self, statement: str, *values: object) -> int:
        """Change the database; return the number of rows that were changed."""
        with self._lock, translate_database_error(self.folder / DATABASE):
            return self._database.execute(statement, values).rowcount
