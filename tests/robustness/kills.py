"""Kills every command at random moments, repeats it, and compares the results with those of an undisturbed one."""

from __future__ import annotations

import argparse
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil

from robustness.datasets import write_files
from robustness.outcomes import (
    EQUAL,
    FINISHED,
    HANG,
    LEFT,
    LOST,
    TRACEBACK,
    WRONG,
    Case,
    Outcome,
    causes,
    save,
    table,
)
from robustness.processes import Command, send
from robustness.scenarios import SCENARIOS, Files, Scenario, has_whole_model, make_inputs, says_finished
from robustness.snapshots import Snapshot, compare, take_snapshot, temporary_files, temporary_folder

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_TRIES = 3
_LATE = 0.4
_END_CPU_S, _LONGEST_END_S = 15.0, 300.0
"""Processor time in which a process of a killed command must end, and the longest time, seconds."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An undisturbed command: its inputs, results and processor time."""

    scenario: Scenario
    files: Files
    snapshot: Snapshot
    cpu_s: float


def make_reference(scenario: Scenario, inputs: Files, folder: Path) -> Reference:
    """Run the command twice undisturbed; both results must be equal, else they could not be compared."""
    snapshots = []
    for number in range(2 if scenario.equal else 1):
        place = folder / f"reference-{number}"
        write_files(inputs, place)
        command = Command(scenario.arguments(place), place)
        if command.wait() != 0:
            raise RuntimeError(f"an undisturbed {scenario.name} failed: {command.output[-2000:]}")
        snapshots.append(take_snapshot(place, scenario.roots))
        remove(place)
    if difference := compare(snapshots[0], snapshots[-1]):
        raise RuntimeError(f"two undisturbed runs of {scenario.name} differ: {difference}")
    return Reference(scenario=scenario, files=inputs, snapshot=snapshots[0], cpu_s=command.used_s)


def remove(place: Path) -> None:
    """Remove the folder of a trial, and that of its temporary files."""
    for folder in (place, temporary_folder(place)):
        shutil.rmtree(folder, ignore_errors=True)


def kill_once(reference: Reference, number: int, folder: Path) -> Outcome:
    """Kill the command after a random share of its processor time, repeat it, and compare."""
    random = Random(f"{reference.scenario.name}/{number}")
    case = Case(format=reference.scenario.name, kind=SIGNALS[number % len(SIGNALS)].name, number=number, action="kill")
    share = random.random() ** _LATE  # most of a short command is imports
    for attempt in range(_TRIES):
        place = folder / f"{reference.scenario.name.replace(' ', '_')}-{number}"
        write_files(reference.files, place)
        try:
            outcome = _kill(reference, case, place, share * 0.6**attempt)
        finally:
            remove(place)
        if outcome.result != FINISHED:
            return outcome
    return outcome


def _kill(reference: Reference, case: Case, place: Path, share: float) -> Outcome:
    scenario = reference.scenario
    raw = take_snapshot(place, ("raw",))
    command = Command(scenario.arguments(place), place)
    if not command.wait_until(share * reference.cpu_s):
        return Outcome(case=case, result=FINISHED)
    send(command, signal.Signals[case.kind])
    if command.wait() is None:
        return Outcome(case=case, result=HANG, cause="does not end after the signal", detail=command.output[-2000:])
    first = command.output
    if "Traceback (most recent call last)" in first:
        return Outcome(case=case, result=TRACEBACK, cause=f"after the signal: {first.strip().splitlines()[-1][:100]}")
    if fault := _orphans(command):
        return Outcome(case=case, result=LEFT, cause=fault)
    again = Command([*scenario.arguments(place), *scenario.resuming], place)
    code = again.wait()
    again.kill_session()
    result, cause = _judge(reference, place, code, again.output, raw)
    return Outcome(case=case, result=result, cause=cause, detail=again.output[-2000:] if cause else "")


def _orphans(command: Command) -> str:
    """Return a fault if processes of the command live on.

    They may be importing when the command is killed, and notice it afterwards. That takes processor time, of which a
    busy machine gives them little.
    """
    deadline_s = time.monotonic() + _LONGEST_END_S
    used_s: dict[int, float] = {}
    while survivors := command.survivors():
        for process in survivors:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used_s.setdefault(process.pid, times.user + times.system)
                if times.user + times.system - used_s[process.pid] > _END_CPU_S:
                    deadline_s = 0.0
        if time.monotonic() > deadline_s:
            command.kill_session()
            return f"{len(survivors)} processes outlive the command"
        time.sleep(0.5)
    return ""


def _judge(reference: Reference, place: Path, code: int | None, output: str, raw: Snapshot) -> tuple[str, str]:
    if code is None:
        return HANG, "the repeated command hangs"
    if "Traceback (most recent call last)" in output:
        return TRACEBACK, f"repeated: {output.strip().splitlines()[-1][:100]}"
    if code != 0 and not says_finished(output):
        return LOST, f"the repeated command fails: {output.strip().splitlines()[-1][:100] if output.strip() else code}"
    if difference := compare(raw, take_snapshot(place, ("raw",))):
        return WRONG, f"the raw data have changed: {difference}"
    if left := temporary_files(place):
        return LEFT, f"temporary files stay: {', '.join(left[:3])}"
    if not reference.scenario.equal:
        missing = has_whole_model(place)
        return (LOST, missing) if missing else (EQUAL, "")
    difference = compare(reference.snapshot, take_snapshot(place, reference.scenario.roots))
    return (LOST, f"results differ: {difference}") if difference else (EQUAL, "")


def run(options: argparse.Namespace) -> int:
    """Kill the commands and print the table."""
    chosen = [s for s in SCENARIOS if not options.only or s.name in options.only]
    share = max(1, round(options.kills / len(chosen)))
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="robustness-") as temporary, suppress(KeyboardInterrupt):
        for outcome in _all_kills(chosen, share, options, Path(temporary)):
            print(f"{outcome.case}: {outcome.result} {outcome.cause}", flush=True)
            outcomes.append(outcome)
    n_kills = sum(outcome.result != FINISHED for outcome in outcomes)
    print(f"{n_kills} kills\n\n{table(outcomes)}\n\n{causes(outcomes)}")
    if options.json:
        save(outcomes, options.json, n_kills=n_kills)
    return int(any(outcome.is_fault for outcome in outcomes))


def _all_kills(scenarios: list[Scenario], share: int, options: argparse.Namespace, folder: Path) -> Iterator[Outcome]:
    """Kill each command once, then each once more, so that a run that is stopped has seen all."""
    references = _make_references(scenarios, folder)
    with ThreadPoolExecutor(options.workers) as pool:
        for number in range(options.first, options.first + share):
            yield from pool.map(lambda reference, n=number: kill_once(reference, n, folder), references)


def _make_references(scenarios: list[Scenario], folder: Path) -> list[Reference]:
    inputs = {needs: make_inputs(needs) for needs in dict.fromkeys(s.needs for s in scenarios)}
    return [make_reference(scenario, inputs[scenario.needs], folder) for scenario in scenarios]
