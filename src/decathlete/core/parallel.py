"""Work over many cases: in parallel where it pays, every failure collected, nothing lost."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from decathlete.core.memory import is_out_of_memory
from decathlete.errors import DecathleteError

_SHORT = (
    "memory does not hold this case\n"
    "  → work on fewer cases at once (--workers), close other programs, or use a computer with more memory"
)

In = TypeVar("In")
Out = TypeVar("Out")
Next = TypeVar("Next")


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Out]):
    """What became of one case: a value, or the message of what went wrong."""

    case_id: str
    value: Out | None = None
    error: str | None = None

    def then(self, step: Callable[[Out], Next]) -> Outcome[Next]:
        """Go on with the case, unless it has failed already."""
        if self.error is not None or self.value is None:
            return Outcome(case_id=self.case_id, error=self.error)
        return attempt(self.case_id, step, self.value)


def map_cases(
    function: Callable[[In], Out],
    cases: Mapping[str, In],
    *,
    workers: int,
    kind: Literal["thread", "process"] = "thread",
) -> Iterator[Outcome[Out]]:
    """Apply ``function`` to every case; yield outcomes as they finish.

    A :class:`DecathleteError`, ``OSError`` or ``ValueError`` of one case, or memory that it does not fit into, is its
    outcome and does not stop the others; anything else is a bug and is raised. At most ``2 * workers`` cases are under
    way, so ten thousand cases cost no memory. Processes are spawned, never forked (torch and blosc2 keep threads).
    """
    if workers <= 1:
        for case_id, item in cases.items():
            yield attempt(case_id, function, item)
        return
    with _executor(workers, kind) as pool:
        yield from _bounded(pool, function, cases.items(), limit=2 * workers)


def _executor(workers: int, kind: Literal["thread", "process"]) -> Executor:
    if kind == "thread":
        return ThreadPoolExecutor(workers)
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _bounded(
    pool: Executor, function: Callable[[In], Out], items: Iterable[tuple[str, In]], *, limit: int
) -> Iterator[Outcome[Out]]:
    running: set[Future[Outcome[Out]]] = set()
    for case_id, item in items:
        running.add(pool.submit(attempt, case_id, function, item))
        if len(running) >= limit:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


def attempt(case_id: str, function: Callable[[In], Out], item: In) -> Outcome[Out]:
    """Call ``function`` on one case; an error that one case can have becomes its outcome, a bug is raised."""
    try:
        return Outcome(case_id=case_id, value=function(item))
    except (DecathleteError, OSError, ValueError) as problem:
        return Outcome(case_id=case_id, error=str(problem) or type(problem).__name__)
    except (MemoryError, RuntimeError) as problem:
        if not is_out_of_memory(problem):
            raise
        return Outcome(case_id=case_id, error=_SHORT)
