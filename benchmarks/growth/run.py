"""How time and peak memory of check, preprocess and predict grow with cases, voxels or classes.

    .venv/bin/python benchmarks/growth/run.py --axis cases --output DIR
    .venv/bin/python benchmarks/growth/run.py --axis voxels --up-to 110e6 --output DIR

Writes a table (Markdown), all figures (JSON) and plots (PNG), dated, and prints the table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[:2]]

from axes import AXES, COMMANDS, Axis, Size
from common.machine import machine
from common.processes import WorkFailed, run_alone
from fit import Point
from tables import markdown, plural, record

MEASURE = Path(__file__).with_name("measure.py")
WORKERS = 2
"""Cases at a time: the commands' default."""


def main() -> int:
    options = _parser().parse_args()
    axis = AXES[options.axis]
    every = axis.small if options.small else axis.full
    sizes = [size for size in every if axis.amount(size) <= options.up_to]
    if not sizes:
        sys.exit(f"no size of this axis is that small: --up-to {axis.amount(every[0])} at least")
    notes = [f"not run: {axis.amount(size):,} {plural(axis.unit)}" for size in every if size not in sizes]
    found: dict[str, list[Point]] = {command: [] for command in options.commands}
    failures: dict[str, str] = {}
    for size in sizes:
        _measure_size(axis, size, options, found, failures)
    notes += [f"{command} failed: {reason.splitlines()[-1]}" for command, reason in failures.items()]
    _write(axis, sizes, found, notes, options)
    for command, reason in failures.items():
        print(f"{command} failed:\n{reason}", file=sys.stderr)
    return 1 if failures else 0


def _measure_size(
    axis: Axis, size: Size, options: argparse.Namespace, found: dict[str, list[Point]], failures: dict[str, str]
) -> None:
    """Make the data of one size and run every command on it; one that has failed is left out."""
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="growth-") as folder:
        data = {"command": "make", "folder": folder, "data": asdict(size)}
        run_alone(MEASURE, data, python=Path(sys.executable), cores=options.cores)
        for command in [name for name in found if name not in failures]:
            try:
                point = _point(axis.amount(size), command, folder, rounds=options.rounds, cores=options.cores)
            except WorkFailed as problem:
                failures[command] = str(problem)
                continue
            found[command].append(point)
            said = f"{point.cpu_seconds:.2f} s CPU, {point.seconds:.2f} s, {point.peak_bytes / 1e6:.0f} MB"
            print(f"{command}, {point.amount:,} {plural(axis.unit)}: {said}", file=sys.stderr, flush=True)


def _point(amount: int, command: str, folder: str, *, rounds: int, cores: Sequence[int]) -> Point:
    """Medians of the times, the greatest peak.

    Raises:
        WorkFailed: a round ended without a result.
    """
    task = {"command": command, "folder": folder, "workers": WORKERS}
    outputs = [f"{folder}/{command}_{turn}" for turn in range(rounds)]
    told = [run_alone(MEASURE, {**task, "output": o}, python=Path(sys.executable), cores=cores) for o in outputs]
    return Point(
        amount=amount,
        seconds=statistics.median(result["seconds"] for result in told),
        cpu_seconds=statistics.median(result["cpu_seconds"] for result in told),
        peak_bytes=max(result["peak_bytes"] for result in told),
    )


def _write(
    axis: Axis, sizes: Sequence[Size], found: dict[str, list[Point]], notes: Sequence[str], options: argparse.Namespace
) -> None:
    table = markdown(axis, sizes, found, notes)
    print(table)
    if options.output is None:
        return
    from plots import plot  # matplotlib only now: the processes are to begin small

    options.output.mkdir(parents=True, exist_ok=True)
    stem = f"{datetime.now(UTC):%Y-%m-%d}-growth-{axis.name}"
    heading = f"# {datetime.now(UTC):%Y-%m-%d}\n\n{machine(options.cores)}\n\n"
    picture = f"\n![time and memory]({stem}.png)\n" if any(found.values()) else ""
    (options.output / f"{stem}.md").write_text(heading + table + picture)
    text = record(axis, sizes, found, notes, python=Path(sys.executable), cores=options.cores)
    (options.output / f"{stem}.json").write_text(text)
    if picture:
        plot(options.output / f"{stem}.png", axis, found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axis", required=True, choices=sorted(AXES), help="what grows")
    parser.add_argument("--small", action="store_true", help="sizes for tests")
    parser.add_argument("--up-to", type=float, default=float("inf"), metavar="N", help="leave larger sizes out")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--rounds", type=int, default=1, help="runs of each; times are medians, peaks the greatest")
    parser.add_argument("--cores", type=_cores, default=sorted(os.sched_getaffinity(0)), help="0,1")
    parser.add_argument("--output", type=Path, help="folder for table, record and plots")
    parser.add_argument("--scratch", type=Path, help="where the made-up data go")
    return parser


def _cores(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
