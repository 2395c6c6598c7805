"""Compare what work needs with what the machine has free, before it starts: fewer cases at a time, or an error."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from decathlete.core import machine
from decathlete.core.estimates import MEMORY_SHARE, workers_that_fit
from decathlete.core.parallel import Workers
from decathlete.core.sizes import format_bytes

log = logging.getLogger(__name__)


def limit_workers(workers: Workers, case_bytes: Mapping[str, int], *, doing: str) -> Workers:
    """Return how many cases fit into the free memory at a time, at most ``workers``; a lower number is logged.

    Args:
        workers: an executor is returned as it is: the memory is that of its machines.
        case_bytes: case -> estimated memory, of the largest cases at least.
        doing: what is done with a case, e.g. ``"prepare"``.
    """
    if not isinstance(workers, int) or not case_bytes:
        return workers
    available = machine.available_memory_bytes()
    used = min(workers, len(case_bytes))
    fitting = workers_that_fit(used, list(case_bytes.values()), available)
    largest = max(case_bytes, key=lambda case: case_bytes[case])
    needs = f"the largest case ({largest}) needs about {format_bytes(case_bytes[largest])} of memory"
    free = f"{format_bytes(available)} are free"
    if fitting < used:
        log.info("%s %d instead of %d cases at a time: %s, %s", doing, fitting, used, needs, free)
        workers = fitting
    if case_bytes[largest] > MEMORY_SHARE * available:
        log.warning("memory may run out: to %s it, %s, %s", doing, needs, free)
    return workers


def warn_of_disk_space(folder: Path, n_bytes: int, *, needed_for: str) -> None:
    """Log a warning if the disk has probably too little free space.

    Args:
        folder: a folder on the disk; it need not exist yet.
        needed_for: the end of the sentence "about 48.0 MB are needed ...".
    """
    free = machine.free_disk_bytes(folder)
    if free < n_bytes:
        log.warning(
            "the disk may become full: about %s are needed %s in %s, %s are free",
            format_bytes(n_bytes),
            needed_for,
            folder,
            format_bytes(free),
        )
