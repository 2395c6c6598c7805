"""Jobs of a DICOM node.

States of a job::

    queued -> computed -> sent      each result is kept until it was accepted
           -> skipped | failed
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, get_args

from decathlete.serving.dicom_node.failures import FailedCopy

Origin = Literal["store", "web"]
NodeJobState = Literal["queued", "computed", "sent", "skipped", "failed"]
NODE_JOB_STATES: tuple[NodeJobState, ...] = get_args(NodeJobState)


@dataclass(frozen=True, kw_only=True)
class NodeJob:
    """The segmentation of one state of a series or study.

    Attributes:
        number: identifies the job in logs.
        unit_uid: identifier of the series or study.
        content: digest of the models and of its instances.
        created: seconds since 1970.
        starts: how many times it was computed.
        attempts: failed deliveries, or computations that were postponed.
        reason: why it was skipped or failed.
    """

    number: int
    unit_uid: str
    origin: Origin
    content: str
    state: NodeJobState
    created: float
    starts: int
    attempts: int
    reason: str | None

    @classmethod
    def of(cls, row: sqlite3.Row) -> Self:
        """Return the job in a row of the database."""
        return cls(
            number=row["number"],
            unit_uid=row["unit_uid"],
            origin=row["origin"],
            content=row["content"],
            state=row["state"],
            created=row["created"],
            starts=row["starts"],
            attempts=row["attempts"],
            reason=row["reason"],
        )


@dataclass(frozen=True, kw_only=True)
class NodeStatus:
    """What a node has done, and what it waits for. It contains nothing of a patient.

    Attributes:
        jobs: number of jobs in each state; states without jobs are left out.
        n_undelivered: results that their receiver did not accept yet.
        failed_copies: series of the archive that could not be copied yet.
        archive_problem: why the last query of the archive failed; ``None``: it did not, or there is no archive.
    """

    jobs: Mapping[NodeJobState, int]
    n_undelivered: int
    failed_copies: tuple[FailedCopy, ...]
    archive_problem: str | None
