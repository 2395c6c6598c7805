"""Reading the next case and writing the last, while this one is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    compute: Callable[[Iterator[Outcome[Read]]], Iterator[Sequence[Outcome[Computed]]]],
    write: Callable[[Computed], Written],
    one_at_a_time: bool = False,
) -> Iterator[Outcome[Written]]:
    """Read, compute and write every case; yield outcomes.

    ``compute`` runs in the caller's thread, and takes cases as it needs them; it hands on what it has finished at one
    time (none: it needs more cases for that). ``read`` and ``write`` run in a thread each. So in memory there are one
    case that was read ahead, those that ``compute`` holds, and those that are being written. An error that a case can
    have ends that case alone.

    Args:
        one_at_a_time: nothing overlaps, and one case alone is in memory.
    """
    if one_at_a_time:
        for case_id, item in items.items():
            for done in compute(iter([attempt(case_id, read, item)])):
                yield from _each(done, write)
        return
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        behind: Future[list[Outcome[Written]]] | None = None
        for done in compute(_read_ahead(items, read, reader)):
            if not done:
                continue
            if behind is not None:
                yield from behind.result()
            behind = writer.submit(_each, done, write)
        if behind is not None:
            yield from behind.result()


def _read_ahead(
    items: Mapping[str, Item], read: Callable[[Item], Read], reader: ThreadPoolExecutor
) -> Iterator[Outcome[Read]]:
    """Cases as they are read, always one ahead."""
    ahead: Future[Outcome[Read]] | None = None
    for case_id, item in items.items():
        found, ahead = ahead, reader.submit(attempt, case_id, read, item)
        if found is not None:
            yield found.result()
    if ahead is not None:
        yield ahead.result()


def _each(outcomes: Sequence[Outcome[Item]], step: Callable[[Item], Written]) -> list[Outcome[Written]]:
    return [outcome.then(step) for outcome in outcomes]


def each(
    function: Callable[[Read], Computed],
) -> Callable[[Iterator[Outcome[Read]]], Iterator[list[Outcome[Computed]]]]:
    """``function`` as :func:`overlapped` takes it: of one case after the other."""

    def compute(cases: Iterator[Outcome[Read]]) -> Iterator[list[Outcome[Computed]]]:
        for case in cases:
            yield [case.then(function)]

    return compute
