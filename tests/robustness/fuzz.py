"""Chooses the cases, runs them, prints the table, and keeps the seeds of faults."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from random import Random

from robustness.formats import load_formats
from robustness.outcomes import Case, Outcome, causes, save, table
from robustness.pool import run_cases

SEEDS = Path(__file__).parent / "seeds.json"
_SEEDS_PER_CAUSE = 2


def choose_cases(
    n_inputs: int,
    *,
    formats: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    actions: Sequence[str] | None = None,
    first: int = 0,
) -> list[Case]:
    """Return about ``n_inputs`` inputs, shared by the formats' weights and evenly by kind, each with all actions.

    The inputs of all formats are shuffled, so that a run that is stopped has seen each; the order is repeatable.
    """
    chosen = [form for name, form in load_formats().items() if not formats or name in formats]
    total = sum(form.weight for form in chosen)
    cases = []
    for form in chosen:
        share = max(1, round(n_inputs * form.weight / total))
        wanted = [kind for kind in form.mutations if not kinds or kind in kinds]
        inputs = [(wanted[i % len(wanted)], first + i // len(wanted)) for i in range(share if wanted else 0)]
        for kind, number in [("honest", 0), *inputs]:
            for action in form.actions:
                if not actions or action in actions:
                    cases.append(Case(format=form.name, kind=kind, number=number, action=action))
    Random(first).shuffle(cases)
    return cases


def read_seeds(path: Path = SEEDS) -> list[Case]:
    """Return the cases that failed once."""
    return [Case(**seed["case"]) for seed in json.loads(path.read_text())] if path.exists() else []


def add_seeds(outcomes: Iterable[Outcome], path: Path) -> None:
    """Add the seeds of faults, a few for each cause."""
    seeds = json.loads(path.read_text()) if path.exists() else []
    known = Counter((seed["result"], seed["cause"]) for seed in seeds)
    for outcome in outcomes:
        key = (outcome.result, outcome.cause)
        if outcome.is_fault and known[key] < _SEEDS_PER_CAUSE:
            known[key] += 1
            seeds.append({"case": asdict(outcome.case), "result": outcome.result, "cause": outcome.cause})
    lines = ",\n".join(json.dumps(seed) for seed in seeds)
    path.write_text(f"[\n{lines}\n]\n")


def run(options: argparse.Namespace) -> int:
    """Run the fuzzer, or replay the seeds."""
    cases = read_seeds() if options.part == "replay" else _chosen(options)
    started = time.monotonic()
    n_done = 0

    def tell(outcome: Outcome) -> None:
        nonlocal n_done
        n_done += 1
        if n_done % 100 == 0:
            print(f"{n_done} of {len(cases)} cases, {time.monotonic() - started:.0f} s", flush=True)

    with ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        outcomes = run_cases(cases, workers=options.workers, cache=work, on_outcome=tell)
    done = [outcome.case for outcome in outcomes]
    n_inputs = len({(c.format, c.kind, c.number) for c in done if c.kind != "honest"})
    took = time.monotonic() - started
    print(f"{n_inputs} malformed inputs, {len(done)} cases, {took:.0f} s\n\n{table(outcomes)}\n\n{causes(outcomes)}")
    if options.json:
        save(outcomes, options.json, n_inputs=n_inputs, seconds=round(took))
    if options.seeds:
        add_seeds(outcomes, options.seeds)
    return int(any(outcome.is_fault for outcome in outcomes))


def _chosen(options: argparse.Namespace) -> list[Case]:
    return choose_cases(
        options.inputs, formats=options.formats, kinds=options.kinds, actions=options.actions, first=options.first
    )
