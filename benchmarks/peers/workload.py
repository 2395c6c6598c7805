"""What is compared: a piece of work that several contenders do, each in its own environment and process.

A module in :mod:`workloads` holds one workload: the same work side by side for every contender, so that a reader can
see that it *is* the same. Contenders import what they need inside their function: the peers' environment has no
Decathlete, and ours no peers. At the top such a module may import numpy and the standard library alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Environment = Literal["ours", "peers"]
Work = Mapping[str, Any]
"""The size of the work, and what else the contenders need to know; what JSON can hold."""


class NotInstalled(Exception):
    """A contender's own package is not there; the message says what is missing. It is left out, which is no failure."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one process measured.

    Attributes:
        amounts: work done per second (or, for ``lower_is_better``, what it cost), one entry for each repetition.
        notes: other figures worth a column: a greatest error, a Dice, a share of the machine's peak.
    """

    amounts: tuple[float, ...]
    notes: dict[str, float | str] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Of the repetitions."""
        return statistics.median(self.amounts)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to do the work.

    Attributes:
        run: ``run(work, folder)``; ``folder`` is the workload's own, the same for all contenders. Raises
            :class:`NotInstalled` where it cannot be run.
        environment: whose Python runs it.
        needs_bf16: on processors that do not compute in bfloat16 it would take minutes to say nothing: it is left out
            there, unless it is named.
    """

    name: str
    environment: Environment
    run: Callable[[Work, Path], Measured]
    needs_bf16: bool = False


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A comparison.

    Attributes:
        unit: of the amounts: ``"s"``, ``"patches/s"``.
        lower_is_better: for seconds and bytes.
        sizes: name -> work; ``small`` is for tests.
        contenders: ours first; ratios are against it.
        prepare: makes what all contenders read, in ``folder``, before the first round; in the environment
            ``prepare_in``.
        compare: lines on how the contenders' outputs agree, from what they left in ``folder``.
    """

    name: str
    title: str
    unit: str
    lower_is_better: bool
    sizes: Mapping[str, Work]
    contenders: tuple[Contender, ...]
    prepare: Callable[[Work, Path], None] | None = None
    prepare_in: Environment = "ours"
    compare: Callable[[Work, Path], list[str]] | None = None


def timed(action: Callable[[], object], *, repeats: int, warmup: int = 1) -> tuple[float, ...]:
    """Seconds of each of ``repeats`` calls, after ``warmup`` that do not count."""
    for _ in range(warmup):
        action()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return tuple(seconds)
