"""Contenders in turn (A B C, A B C, ...), each time in a new process, on the same cores with the same threads."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.machine import computes_bf16
from common.processes import WorkFailed, run_alone
from workload import Contender, Environment, Work, Workload

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What all rounds of one contender gave.

    Attributes:
        amounts: the median of each round.
        peak_bytes: resident memory of its largest process, the greatest of all rounds.
        failure: the last lines of a process that failed; amounts are of the rounds before.
        absent: what is not installed, so that there was nothing to run.
    """

    contender: str
    amounts: tuple[float, ...]
    notes: dict[str, float | str]
    peak_bytes: int
    failure: str | None = None
    absent: str | None = None

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.amounts)


def play(
    workload: Workload,
    work: Work,
    folder: Path,
    *,
    rounds: int,
    pythons: Mapping[Environment, Path],
    cores: Sequence[int],
    only: Sequence[str] = (),
) -> list[Outcome]:
    """Run all contenders ``rounds`` times in turn; one that fails is left out of the rounds that follow."""
    chosen = choose_contenders(workload, only)
    if workload.prepare is not None:
        try:
            _process(workload, None, work, folder, pythons[workload.prepare_in], cores)
        except WorkFailed as problem:
            return [_outcome(c.name, [], f"nothing could be prepared: {problem}") for c in chosen]
    found: dict[str, list[dict[str, object]]] = {c.name: [] for c in chosen}
    failures: dict[str, str] = {}
    absent: dict[str, str] = {}
    for turn in range(rounds):
        for contender in chosen:
            if contender.name in failures or contender.name in absent:
                continue
            try:
                result = _process(workload, contender, work, folder, pythons[contender.environment], cores)
            except WorkFailed as problem:
                failures[contender.name] = str(problem)
                continue
            if "absent" in result:
                absent[contender.name] = str(result["absent"])
                continue
            found[contender.name].append(result)
            print(f"round {turn + 1}  {contender.name}: {_median(result):.4g} {workload.unit}", file=sys.stderr)
    return [_outcome(c.name, found[c.name], failures.get(c.name), absent.get(c.name)) for c in chosen]


def choose_contenders(workload: Workload, only: Sequence[str]) -> list[Contender]:
    """Those that are named; or all, but for those in a precision that the processor has not, which is said."""
    if only:
        return [c for c in workload.contenders if c.name in only]
    emulated = [] if computes_bf16() else [c.name for c in workload.contenders if c.needs_bf16]
    if emulated:
        print(
            f"{workload.name}: left out, since this processor does not compute in bf16 itself: {'; '.join(emulated)} "
            "(name them with --only to run them)",
            file=sys.stderr,
        )
    return [c for c in workload.contenders if c.name not in emulated]


def _process(
    workload: Workload, contender: Contender | None, work: Work, folder: Path, python: Path, cores: Sequence[int]
) -> dict[str, object]:
    """Run one contender (or, without one, the preparation) in a process of its own.

    Raises:
        WorkFailed: it ended without a result.
    """
    name = None if contender is None else contender.name
    task = {"workload": workload.name, "contender": name, "work": dict(work), "folder": str(folder)}
    result = run_alone(HERE / "worker.py", task, python=python, cores=cores)
    if contender is not None and not result:
        raise WorkFailed("it ended without a result")
    return result


def _median(result: Mapping[str, object]) -> float:
    return statistics.median(result["amounts"])  # type: ignore[arg-type,type-var,return-value]


def _outcome(
    name: str, results: Sequence[Mapping[str, object]], failure: str | None, absent: str | None = None
) -> Outcome:
    return Outcome(
        contender=name,
        amounts=tuple(_median(result) for result in results),
        notes=dict(results[-1]["notes"]) if results else {},  # type: ignore[call-overload]
        peak_bytes=max((int(result["peak_bytes"]) for result in results), default=0),  # type: ignore[call-overload]
        failure=failure,
        absent=absent,
    )
