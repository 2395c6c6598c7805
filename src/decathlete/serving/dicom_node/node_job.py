"""Instances and jobs of a DICOM node.

States of a job::

    queued -> computed -> sent      each result is kept until it was accepted
           -> skipped | failed
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal, Self

Origin = Literal["store", "web"]
NodeJobState = Literal["queued", "computed", "sent", "skipped", "failed"]


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An instance that arrived, as a file in DICOM."""

    content: bytes
    sop_uid: str
    series_uid: str
    study_uid: str
    origin: Origin


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
