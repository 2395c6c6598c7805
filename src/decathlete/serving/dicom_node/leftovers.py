"""Deletes what a DICOM node left, in a service that runs none: its series and results are of patients."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from decathlete.core.files import remove
from decathlete.errors import OutputError
from decathlete.serving.dicom_node.node_database import DATABASE
from decathlete.serving.dicom_node.node_store import NodeStore

log = logging.getLogger(__name__)


class NodeLeftovers:
    """The folder of a DICOM node that does not run. A folder that cannot be used is reported in the log, and stays.

    Args:
        folder: of the node; it may be missing.
        keep_seconds: age at which series and results are deleted, also results that were not sent.
        clock: seconds since 1970.
    """

    def __init__(self, folder: Path, *, keep_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._keep_seconds, self._clock = folder, keep_seconds, clock
        self._store = self._open()
        if self._store is not None:
            log.info("no DICOM node runs; what one left is deleted when it is older than --keep")

    def delete_old(self) -> None:
        """Delete series and results that are too old, and the folder when nothing is left in it.

        Raises:
            OutputError: the database cannot be written.
        """
        if self._store is None:
            return
        before = self._clock() - self._keep_seconds
        for job in self._store.jobs():
            if job.state == "computed" and job.created < before:
                self._store.finish(job, "failed", "its result was not sent: no DICOM node runs")
                remove(self._store.job_folder(job))
        self._store.delete_old(before)
        if self._store.is_empty():
            self.close()
            remove(self._folder)

    def close(self) -> None:
        """Close the database."""
        if self._store is not None:
            self._store.close()
            self._store = None

    def _open(self) -> NodeStore | None:
        if not (self._folder / DATABASE).exists():
            return None
        try:
            return NodeStore(self._folder)
        except OutputError as problem:
            log.warning("%s %s; what a DICOM node left is not deleted", problem.where, problem.problem)
            return None
