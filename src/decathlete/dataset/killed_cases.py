"""Name the cases that were in work when the process, or the computer, was ended without warning."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from decathlete.core.files import read_text, remove
from decathlete.core.machine import count_oom_kills
from decathlete.dataset.given_splits import count_cases, name_some

log = logging.getLogger(__name__)

_MARKS = ".in_work"
"""Folder with a file for each case that is processed at this moment."""


@contextmanager
def marked_in_work(folder: Path, case_id: str) -> Iterator[None]:
    """Mark a case while it is processed. Only a process that is killed leaves the mark.

    Args:
        folder: of the results.
    """
    mark_in_work(folder, case_id)
    try:
        yield
    finally:
        unmark(folder, case_id)


def mark_in_work(folder: Path, case_id: str) -> None:
    """Mark a case that is processed from now on, until :func:`unmark`.

    The mark holds the number of processes that the system had killed for lack of memory.
    """
    mark = folder / _MARKS / case_id
    with suppress(OSError):  # a disk that is full is reported where the case is written
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(str(count_oom_kills() or 0))


def unmark(folder: Path, case_id: str) -> None:
    """Remove the mark of a case, if there is one."""
    with suppress(OSError):
        (folder / _MARKS / case_id).unlink()


@contextmanager
def cases_in_work(folder: Path, *, verb: str, remedy: str) -> Iterator[None]:
    """Name the cases that an earlier process left marked, and remove all marks at the end; hold the folder's lock.

    Args:
        verb: what is done with the cases, in the past tense, such as ``"prepared"``.
        remedy: against a lack of memory: the end of the sentence "if that happens again, use fewer --workers".
    """
    _warn_of_killed(folder, verb=verb, remedy=remedy)
    try:
        yield
    finally:
        remove(folder / _MARKS)


def _warn_of_killed(folder: Path, *, verb: str, remedy: str) -> None:
    marks = sorted((folder / _MARKS).glob("*"))
    if not marks:
        return
    ids = [mark.name for mark in marks]
    if any(map(_memory_ran_out_since, marks)):
        cause = f"memory ran out; if that happens again, {remedy}"
    else:
        cause = "killed, or the computer was switched off"
    log.warning("an earlier command was ended while it %s %s: %s (%s)", verb, count_cases(ids), name_some(ids), cause)


def _memory_ran_out_since(mark: Path) -> bool:
    try:
        before = int(read_text(mark))
    except (OSError, ValueError):  # the kill came before it was written
        return False
    return (count_oom_kills() or 0) > before
