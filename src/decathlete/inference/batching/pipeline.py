"""Read the next case and write the last one while a case is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from decathlete.core.parallel import Outcome, attempt

Item = TypeVar("Item")
Read = TypeVar("Read")
Computed = TypeVar("Computed")
Written = TypeVar("Written")


def run_pipeline(
    items: Mapping[str, Item],
    *,
    read: Callable[[Item], Read],
    compute: Callable[[Iterator[Outcome[Read]]], Iterator[Sequence[Outcome[Computed]]]],
    write: Callable[[Computed], Written],
    one_at_a_time: bool = False,
) -> Iterator[Outcome[Written]]:
    """Read, compute and write every case; yield the outcomes.

    In memory are one case that was read ahead, those that ``compute`` holds, and those that are being written. An error
    of a case is its outcome, and does not affect the others.

    Args:
        items: by case id.
        read: runs in a thread of its own.
        compute: runs in the caller's thread; it reads cases as it needs them, and yields those that it finished at the
            same time (an empty list: it needs more cases).
        write: runs in a thread of its own.
        one_at_a_time: finish each case before the next is read, so that only one is in memory.
    """
    if one_at_a_time:
        for case_id, item in items.items():
            for done in compute(iter([attempt(case_id, read, item)])):
                yield from _write_all(done, write)
        return
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        behind: Future[list[Outcome[Written]]] | None = None
        for done in compute(_read_ahead(items, read, reader)):
            if not done:
                continue
            if behind is not None:
                yield from behind.result()
            behind = writer.submit(_write_all, done, write)
        if behind is not None:
            yield from behind.result()


def _read_ahead(
    items: Mapping[str, Item], read: Callable[[Item], Read], reader: ThreadPoolExecutor
) -> Iterator[Outcome[Read]]:
    """Yield cases while the next one is read."""
    ahead: Future[Outcome[Read]] | None = None
    for case_id, item in items.items():
        current, ahead = ahead, reader.submit(attempt, case_id, read, item)
        if current is not None:
            yield current.result()
    if ahead is not None:
        yield ahead.result()


def _write_all(outcomes: Sequence[Outcome[Item]], write: Callable[[Item], Written]) -> list[Outcome[Written]]:
    return [outcome.then(write) for outcome in outcomes]


def compute_each(
    function: Callable[[Read], Computed],
) -> Callable[[Iterator[Outcome[Read]]], Iterator[list[Outcome[Computed]]]]:
    """Turn a function of one case into a ``compute`` for :func:`run_pipeline`."""

    def compute(cases: Iterator[Outcome[Read]]) -> Iterator[list[Outcome[Computed]]]:
        for case in cases:
            yield [case.then(function)]

    return compute
