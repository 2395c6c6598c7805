"""Runs commands under faults of the machine and prints the table."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from robustness import disturbances
from robustness.disturbances import Fault
from robustness.kills import Reference, make_reference, remove
from robustness.outcomes import Case, Outcome, causes, save, table
from robustness.scenarios import SCENARIOS, Files, make_inputs

_WRITING = (
    *("preprocess", "train --epochs", "predict", "validate", "report", "convert", "convert --merge", "import nnunet"),
    *("export triton", "run --epochs", "select"),
)

FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "full disk": (disturbances.full_disk, _WRITING),
    "read-only": (disturbances.read_only, _WRITING),
    "no permission": (disturbances.no_permission, _WRITING),
    "little memory": (disturbances.little_memory, ("preprocess", "train --epochs", "predict")),
    "two at once": (disturbances.two_at_once, (*_WRITING, "export nnunet")),
    "dead worker": (disturbances.dead_worker, ("preprocess", "train --devices 2")),
    "dead parent": (disturbances.dead_parent, ("train --devices 2",)),
}


def run(options: argparse.Namespace) -> int:
    """Run the faults and print the table."""
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="robustness-") as temporary, suppress(KeyboardInterrupt):
        outcomes.extend(_all_faults(options, Path(temporary)))
    print(f"\n{table(outcomes)}\n\n{causes(outcomes)}")
    if options.json:
        save(outcomes, options.json)
    return int(any(outcome.is_fault for outcome in outcomes))


def _all_faults(options: argparse.Namespace, folder: Path) -> Iterator[Outcome]:
    only = set(options.only or ())
    chosen = {name: fault for name, fault in FAULTS.items() if not only & FAULTS.keys() or name in only}
    inputs: dict[str, Files] = {}
    for scenario in (s for s in SCENARIOS if only <= FAULTS.keys() or s.name in only):
        faults = [(name, fault) for name, (fault, commands) in chosen.items() if scenario.name in commands]
        if not faults:
            continue
        if scenario.needs not in inputs:
            inputs[scenario.needs] = make_inputs(scenario.needs)
        reference = make_reference(scenario, inputs[scenario.needs], folder)
        with ThreadPoolExecutor(options.workers) as pool:
            for outcome in pool.map(lambda item, r=reference: _one(*item, r, folder), faults):
                print(f"{outcome.case}: {outcome.result} {outcome.cause}", flush=True)
                yield outcome


def _one(name: str, fault: Fault, reference: Reference, folder: Path) -> Outcome:
    scenario = reference.scenario
    place = folder / f"{name}-{scenario.name}".replace(" ", "_")
    result, cause = fault(reference, place)
    remove(place)
    case = Case(format=name, kind=scenario.name, number=0, action="fault")
    return Outcome(case=case, result=result, cause=f"{scenario.name}: {cause}" if cause else "")
