"""Reading the next case and writing the last, while this one is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from decathlete.core.parallel import Outcome, attempt

Item = TypeVar("Item")
Read = TypeVar("Read")
Computed = TypeVar("Computed")
Written = TypeVar("Written")


def overlapped(
    items: Mapping[str, Item],
    *,
    read: Callable[[Item], Read],
    compute: Callable[[Read], Computed],
    write: Callable[[Computed], Written],
    one_at_a_time: bool = False,
) -> Iterator[Outcome[Written]]:
    """Read, compute and write every case; yield outcomes in the order of ``items``.

    ``compute`` runs in the caller's thread, one case at a time, ``read`` and ``write`` in a thread each. At most
    three cases are in memory: one read ahead, one computed, one being written. An error that a case can have ends
    that case alone.

    Args:
        one_at_a_time: nothing overlaps, and one case alone is in memory.
    """
    if one_at_a_time:
        for case_id, item in items.items():
            yield _then(_then(attempt(case_id, read, item), compute), write)
        return
    waiting = iter(items.items())
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        ahead: deque[Future[Outcome[Read]]] = deque()
        behind: deque[Future[Outcome[Written]]] = deque()

        def read_next() -> None:
            for case_id, item in waiting:
                ahead.append(reader.submit(attempt, case_id, read, item))
                return

        read_next()
        while ahead:
            found = ahead.popleft().result()
            read_next()
            done = _then(found, compute)
            while behind:
                yield behind.popleft().result()
            behind.append(writer.submit(_then, done, write))
        while behind:
            yield behind.popleft().result()


def _then(outcome: Outcome[Item], step: Callable[[Item], Written]) -> Outcome[Written]:
    """Go on with a case, unless it has failed already."""
    if outcome.error is not None or outcome.value is None:
        return Outcome(case_id=outcome.case_id, error=outcome.error)
    return attempt(outcome.case_id, step, outcome.value)
