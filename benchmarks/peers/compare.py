"""Decathlete beside its peers: the same work, on the same cores, in turn.

    make peers                                               # their environment, once
    .venv/bin/python benchmarks/peers/compare.py resample    # or several workloads, or: all
    .venv/bin/python benchmarks/peers/compare.py all --size small --rounds 1

Prints tables, and with --output DIR writes them there as Markdown and JSON, dated.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[:2]]

from common.machine import machine
from report import markdown, public, record
from rounds import play
from workload import Environment, Workload

ROOT = Path(__file__).resolve().parents[2]
WORKLOADS = sorted(path.stem for path in (Path(__file__).parent / "workloads").glob("[a-z]*.py"))


def main() -> int:
    options = _parser().parse_args()
    pythons: dict[Environment, Path] = {"ours": Path(sys.executable), "peers": options.peers / "bin" / "python"}
    if not pythons["peers"].is_file():
        sys.exit(f"no environment of the peers in {options.peers}: make it with `make peers`, or give --peers")
    names = WORKLOADS if options.workloads == ["all"] else options.workloads
    failed = False
    for name in names:
        workload: Workload = importlib.import_module(f"workloads.{name}").WORKLOAD
        failed |= _compare(workload, options, pythons)
    return 1 if failed else 0


def _compare(workload: Workload, options: argparse.Namespace, pythons: dict[Environment, Path]) -> bool:
    """Play one workload, print and write its tables; whether any contender failed."""
    if options.size not in workload.sizes:
        sys.exit(f"{workload.name} has no size {options.size!r}: choose {', '.join(workload.sizes)}")
    contenders = [contender.name for contender in workload.contenders]
    if options.only and not set(contenders) & set(options.only):
        sys.exit(f"{workload.name} has none of these contenders: choose {', '.join(contenders)}")
    work = {**workload.sizes[options.size], **dict(options.set), "data": str(options.data)}
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        outcomes = play(
            workload,
            work,
            folder,
            rounds=options.rounds,
            pythons=pythons,
            cores=options.cores,
            only=options.only,
        )
        agreement = workload.compare(work, folder) if workload.compare else []
    work = public(work)
    table = markdown(workload, work, outcomes, agreement)
    print(table)
    if options.output is not None:
        stem = f"{datetime.now(UTC):%Y-%m-%d}-{workload.name}"
        options.output.mkdir(parents=True, exist_ok=True)
        heading = f"# {workload.name}, {datetime.now(UTC):%Y-%m-%d}\n\n{machine(options.cores)}\n\n"
        (options.output / f"{stem}.md").write_text(heading + table)
        text = record(workload, work, outcomes, agreement, pythons=pythons, cores=options.cores)
        (options.output / f"{stem}.json").write_text(text)
    for outcome in outcomes:
        if outcome.failure:
            print(f"{outcome.contender} failed:\n{outcome.failure}", file=sys.stderr)
    return any(outcome.failure for outcome in outcomes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "workloads", nargs="+", choices=[*WORKLOADS, "all"], metavar="WORKLOAD", help=", ".join(WORKLOADS)
    )
    parser.add_argument("--size", default="full", help="small (for tests), full, or another that the workload names")
    parser.add_argument("--rounds", type=int, default=5, help="times that each contender runs")
    parser.add_argument("--set", type=_entry, nargs="*", default=(), metavar="KEY=VALUE", help="change the work")
    parser.add_argument("--only", nargs="*", default=(), help="contenders to run, by name (ours first)")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="real datasets")
    parser.add_argument("--peers", type=Path, default=Path(os.environ.get("DECATHLETE_PEERS", ROOT / ".venv-peers")))
    parser.add_argument("--cores", type=_cores, default=sorted(os.sched_getaffinity(0)), help="0,1")
    parser.add_argument("--output", type=Path, help="folder for the tables and records")
    parser.add_argument("--scratch", type=Path, help="where temporary folders go")
    return parser


def _cores(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _entry(text: str) -> tuple[str, object]:
    """``cases=3`` or ``model=/models/hippocampus``: what is no JSON is text."""
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


if __name__ == "__main__":
    sys.exit(main())
