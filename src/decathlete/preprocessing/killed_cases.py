"""Name the cases that were prepared when the process, or the computer, was ended without warning."""

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
"""Folder with a file for each case that is prepared at this moment."""


@contextmanager
def marked_in_work(folder: Path, case_id: str) -> Iterator[None]:
    """Mark a case while it is prepared. Only a process that is killed leaves the mark.

    The mark holds the number of processes that the system had killed for lack of memory.

    Args:
        folder: of the prepared data.
    """
    mark = folder / _MARKS / case_id
    with suppress(OSError):  # a disk that is full is reported where the case is written
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(str(count_oom_kills() or 0))
    try:
        yield
    finally:
        with suppress(OSError):
            mark.unlink()


@contextmanager
def cases_in_work(folder: Path) -> Iterator[None]:
    """Name the cases that an earlier process left marked, and remove all marks at the end; hold the folder's lock."""
    _warn_of_killed(folder)
    try:
        yield
    finally:
        remove(folder / _MARKS)


def _warn_of_killed(folder: Path) -> None:
    marks = sorted((folder / _MARKS).glob("*"))
    if marks:
        ids = [mark.name for mark in marks]
        log.warning(
            "an earlier preparation was ended while it prepared %s: %s (%s); if that happens again, use fewer "
            "--workers",
            count_cases(ids),
            name_some(ids),
            "memory ran out" if any(map(_memory_ran_out_since, marks)) else "killed, or the computer was switched off",
        )


def _memory_ran_out_since(mark: Path) -> bool:
    try:
        before = int(read_text(mark))
    except (OSError, ValueError):  # the kill came before it was written
        return False
    return (count_oom_kills() or 0) > before
