"""Failures of a DICOM node: their reasons, without anything of the patient, and the time of the next attempt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from decathlete.errors import DecathleteError, ServiceError

_LONGEST_WAIT_S = 600.0
_LONGEST_COPY_WAIT_S = 3600.0
_MAX_DOUBLINGS = 10

log = logging.getLogger(__name__)


class NodeStoppedError(Exception):
    """Ends a computation when the node is stopped."""


def backoff_seconds(first_s: float, n_failures: int, *, longest_s: float = _LONGEST_WAIT_S) -> float:
    """Return how long to wait after failures: ``first_s``, doubled with each one.

    >>> [backoff_seconds(10, n) for n in (1, 2, 3, 20)]
    [10, 20, 40, 600.0]
    """
    doubled: float = first_s * 2 ** min(n_failures - 1, _MAX_DOUBLINGS)
    return min(doubled, longest_s)


def describe_failure(problem: Exception) -> str:
    """Return what went wrong; texts of other libraries may name a patient or a series, so they are left out."""
    if isinstance(problem, ServiceError):
        return problem.problem
    if isinstance(problem, DecathleteError):
        return problem.code
    status = getattr(getattr(problem, "response", None), "status_code", None)
    return type(problem).__name__ if status is None else f"HTTP status {status}"


@dataclass(frozen=True, kw_only=True)
class FailedCopy:
    """A series of an archive that could not be copied.

    Attributes:
        n_instances: that the archive has of it.
        attempts: how many failed.
        next_attempt: seconds since 1970.
        reason: of the last failure.
    """

    n_instances: int
    attempts: int
    next_attempt: float
    reason: str


class FailedCopies:
    """The series that could not be copied, by their identifiers. Each is logged once; threads may read it.

    Args:
        first_wait_s: time before the second attempt; doubled after each failure, up to one hour.
        clock: seconds since 1970.
    """

    def __init__(self, *, first_wait_s: float, clock: Callable[[], float]) -> None:
        self._first_wait_s, self._clock = first_wait_s, clock
        self._failed: dict[str, FailedCopy] = {}  # replaced, never changed

    def list(self) -> tuple[FailedCopy, ...]:
        """Return all of them."""
        return tuple(self._failed.values())

    def is_due(self, series_uid: str, n_instances: int) -> bool:
        """Return whether a series may be copied now: it did not fail, its wait is over, or it has changed."""
        failed = self._failed.get(series_uid)
        return failed is None or failed.n_instances != n_instances or failed.next_attempt <= self._clock()

    def add(self, series_uid: str, n_instances: int, problem: Exception) -> None:
        """Record a failure."""
        reason, before = describe_failure(problem), self._failed.get(series_uid)
        attempts = before.attempts + 1 if before else 1
        wait_s = backoff_seconds(self._first_wait_s, attempts, longest_s=_LONGEST_COPY_WAIT_S)
        failed = FailedCopy(
            n_instances=n_instances, attempts=attempts, next_attempt=self._clock() + wait_s, reason=reason
        )
        self._failed = self._failed | {series_uid: failed}
        if before is None:
            text = "a series of %d instances could not be copied from the archive (%s); it is tried again"
            log.warning(text, n_instances, reason)

    def remove(self, series_uid: str) -> None:
        """Forget the failures of a series that was copied."""
        if (failed := self._failed.get(series_uid)) is not None:
            log.info("copied a series of the archive after %d failed attempts", failed.attempts)
            self.keep_only(self._failed.keys() - {series_uid})

    def keep_only(self, series_uids: Collection[str]) -> None:
        """Forget all other series, such as those that are no longer in the archive."""
        self._failed = {uid: failed for uid, failed in self._failed.items() if uid in series_uids}
