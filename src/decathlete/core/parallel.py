"""Apply a function to many cases in parallel and collect the error of each failed case."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from decathlete.core.memory import is_out_of_memory
from decathlete.errors import DecathleteError, InsufficientMemoryError

_log = logging.getLogger(__name__)
_PARENT_ENDED = 1
"""Exit status of a worker whose parent has ended."""

In = TypeVar("In")
Out = TypeVar("Out")
Next = TypeVar("Next")


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Out]):
    """The result of one case: a value, or the error that stopped it.

    Attributes:
        error: the message of the error.
        cause: the error with its code and remedy.
    """

    case_id: str
    value: Out | None = None
    error: str | None = None
    cause: DecathleteError | None = None

    def then(self, step: Callable[[Out], Next]) -> Outcome[Next]:
        """Apply ``step`` to the value; a failed case stays failed."""
        if self.error is not None or self.value is None:
            return Outcome(case_id=self.case_id, error=self.error, cause=self.cause)
        return attempt(self.case_id, step, self.value)


@dataclass(frozen=True, kw_only=True)
class TaskNeeds:
    """What one call needs of the worker process that makes it. The defaults suit work on single cases.

    Attributes:
        at_once: most calls at a time in one worker process; ``None``: one for each of its threads.
        device: where the call computes (``cpu``, ``auto``, ``cuda``, ``cuda:1``, ``mps``).
        n_devices: number of GPUs that the call uses, if it computes on GPUs.
        resources: further resources that the worker must offer, e.g. ``{"MEMORY": 64e9}``.
        own_process: make the call in a process of its own, with all threads of the worker.
    """

    at_once: int | None = None
    device: str = "cpu"
    n_devices: int = 1
    resources: Mapping[str, float] = field(default_factory=dict)
    own_process: bool = False


class CaseExecutor(Protocol):
    """Applies functions to cases in other processes, on this or other machines (:mod:`decathlete.cluster`).

    Functions and cases are pickled: functions must be importable by name, alone or in a ``functools.partial``.
    """

    def map(
        self, function: Callable[[In], Out], cases: Mapping[str, In], *, needs: TaskNeeds = TaskNeeds()
    ) -> Iterator[Outcome[Out]]:
        """Apply ``function`` to every case and yield outcomes as :func:`map_cases` does.

        Args:
            needs: what one call needs of a worker process.
        """
        ...

    def require_shared(self, *, reads: Sequence[Path] = (), writes: Sequence[Path] = ()) -> None:
        """Check that the workers see the same files as this process.

        Args:
            reads: files and folders that the workers read.
            writes: existing folders that the workers write to.

        Raises:
            ClusterError: a worker sees other files, or does not see them.
        """
        ...

    def call_everywhere(self, function: Callable[[], None]) -> None:
        """Call ``function`` once in every worker process."""
        ...

    def count_at_once(self, needs: TaskNeeds) -> int:
        """Return how many calls the workers that are there now can make at a time; 0 if none offers what they need."""
        ...


Workers = int | CaseExecutor
"""Where cases are processed: in so many threads of this process, or by an executor."""


def require_shared(workers: Workers, *, reads: Sequence[Path] = (), writes: Sequence[Path] = ()) -> None:
    """Check that an executor's workers see the same files as this process; threads always do.

    Raises:
        ClusterError: a worker sees other files, or does not see them.
    """
    if not isinstance(workers, int):
        workers.require_shared(reads=reads, writes=writes)


def map_cases(function: Callable[[In], Out], cases: Mapping[str, In], *, workers: Workers) -> Iterator[Outcome[Out]]:
    """Apply ``function`` to every case and yield outcomes in the order in which they finish.

    Any exception of one case becomes its outcome and does not stop the others. At most ``2 * workers`` cases are
    submitted at a time, so that ten thousand cases need no memory.

    Args:
        workers: number of threads, or an executor, which calls ``function`` in other processes.
    """
    if not isinstance(workers, int):
        yield from workers.map(function, cases)
        return
    if workers <= 1:
        for case_id, item in cases.items():
            yield attempt(case_id, function, item)
        return
    with ThreadPoolExecutor(workers) as pool:
        running: set[Future[Outcome[Out]]] = set()
        for case_id, item in cases.items():
            running.add(pool.submit(attempt, case_id, function, item))
            if len(running) >= 2 * workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def end_with_parent() -> None:
    """End this worker process as soon as its parent process has ended, however that ended.

    Call it first in every process that :mod:`multiprocessing` starts; elsewhere it does nothing. A thread waits at the
    pipe that every such process shares with its parent and that the system closes with the parent. (The signal of
    ``PR_SET_PDEATHSIG`` exists only on Linux, and comes when the *thread* that started the process ends.) Nothing is
    saved: the parent's locks are free, so that another process may already write to the same folder.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.join,), name="end-with-parent", daemon=True).start()


def _exit_after(wait_for_parent: Callable[[], None]) -> None:
    wait_for_parent()
    os._exit(_PARENT_ENDED)


def attempt(case_id: str, function: Callable[[In], Out], item: In) -> Outcome[Out]:
    """Call ``function`` on one case; an error becomes its outcome."""
    try:
        return Outcome(case_id=case_id, value=function(item))
    except Exception as problem:
        cause = _cause(case_id, problem)
    return Outcome(case_id=case_id, error=str(cause), cause=cause)


def _cause(case_id: str, problem: Exception) -> DecathleteError:
    """Describe the error of a case; the log keeps the traceback of an error that no module expects."""
    if isinstance(problem, DecathleteError):
        return problem
    if is_out_of_memory(problem):
        return InsufficientMemoryError(
            "out of memory",
            remedy="process fewer cases at once (--workers), close other programs, or use a computer with more memory",
        )
    if isinstance(problem, OSError):
        return DecathleteError(str(problem) or type(problem).__name__, code="E-FILE")
    if isinstance(problem, ValueError):
        return DecathleteError(str(problem) or type(problem).__name__)
    _log.debug("case %s failed", case_id, exc_info=problem)
    return DecathleteError(
        f"unexpected {type(problem).__name__}: {problem}",
        remedy="look at the files of this case; if they are fine, open an issue with this message",
    )
