"""What was measured, as Markdown and as JSON that names the machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from axes import Axis, Size
from common.machine import machine, versions
from fit import STEEPEST, Point, bytes_per_unit, exponent

Found = Mapping[str, Sequence[Point]]
"""Command -> its points, by amount."""


def markdown(axis: Axis, sizes: Sequence[Size], found: Found, notes: Sequence[str]) -> str:
    """A row for each command and size, then how each command grows."""
    lines = [
        f"## Growth with the number of {plural(axis.unit)}",
        "",
        f"{_kept(axis, sizes)} Each command in a process of its own; seconds and peak are the whole command's, CPU "
        "seconds those of all its threads.",
        "",
        f"| command | {plural(axis.unit)} | seconds | CPU seconds | ms of CPU per {_step(axis)[1]} | peak memory |",
        "|---|---|---|---|---|---|",
        *(_row(axis, command, point) for command, points in found.items() for point in points),
        "",
        "| command | CPU time grows like n to the | wall time like n to the | peak memory grows by | judged |",
        "|---|---|---|---|---|",
        *(_growth(axis, command, points) for command, points in found.items() if points),
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines).rstrip() + "\n"


def plural(unit: str) -> str:
    """``classes``, ``cases``, ``voxels``."""
    return f"{unit}es" if unit.endswith("s") else f"{unit}s"


def _step(axis: Axis) -> tuple[int, str]:
    """A million voxels is what a reader can compare."""
    return (10**6, "million voxels") if axis.name == "voxels" else (1, axis.unit)


def _kept(axis: Axis, sizes: Sequence[Size]) -> str:
    size = sizes[0]
    kept = {
        "cases": f"{size.cases} case(s)",
        "voxels": f"images of {'x'.join(map(str, size.shape_ZYX))} voxels (z, y, x)",
        "classes": f"{size.classes} classes",
    }
    others = [text for name, text in kept.items() if name != axis.name]
    return f"{', '.join(others)}; the model's patch is {'x'.join(map(str, size.patch))}, its features are few."


def _row(axis: Axis, command: str, point: Point) -> str:
    step, _ = _step(axis)
    each = 1000 * point.cpu_seconds * step / point.amount
    ms = f"{each:,.0f}" if each >= 100 else f"{each:.3g}"
    peak = f"{point.peak_bytes / 1e6:,.0f} MB"
    return f"| {command} | {point.amount:,} | {point.seconds:.2f} | {point.cpu_seconds:.2f} | {ms} | {peak} |"


def _growth(axis: Axis, command: str, points: Sequence[Point]) -> str:
    amounts = [p.amount for p in points]
    cpu = _number(exponent(amounts, [p.cpu_seconds for p in points]))
    wall = _number(exponent(amounts, [p.seconds for p in points]))
    return f"| {command} | {cpu} | {wall} | {_memory(axis, points)} | {'; '.join(judged(axis, points))} |"


def judged(axis: Axis, points: Sequence[Point]) -> list[str]:
    """Time: at most linear; memory: within the axis's limit, where it has one."""
    steep = exponent([p.amount for p in points], [p.cpu_seconds for p in points])
    verdicts = [] if steep is None else ["time linear or less" if steep <= STEEPEST else "TIME GROWS TOO MUCH"]
    grown = bytes_per_unit(points, start=axis.memory_from)
    if axis.memory_per_unit is not None and grown is not None:
        verdicts.append("memory within limit" if grown <= axis.memory_per_unit else "MEMORY GROWS TOO MUCH")
    return verdicts


def _memory(axis: Axis, points: Sequence[Point]) -> str:
    grown = bytes_per_unit(points, start=axis.memory_from)
    if grown is None:
        return ""
    limit = "" if axis.memory_per_unit is None else f" (limit {axis.memory_per_unit / 1000:g} kB)"
    if axis.name == "voxels":
        return f"{grown:.1f} bytes per voxel{limit}"
    return f"{grown / 1000:.2f} kB per {axis.unit}{limit}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def record(
    axis: Axis, sizes: Sequence[Size], found: Found, notes: Sequence[str], *, python: Path, cores: Sequence[int]
) -> str:
    """All of it as JSON."""
    return json.dumps(
        {
            "axis": axis.name,
            "unit": axis.unit,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(cores),
            "versions": versions(python),
            "sizes": [asdict(size) for size in sizes],
            "commands": {
                command: {
                    "points": [asdict(point) for point in points],
                    "exponent": exponent([p.amount for p in points], [p.cpu_seconds for p in points])
                    if points
                    else None,
                    "bytes_per_unit": bytes_per_unit(points, start=axis.memory_from) if points else None,
                    "judged": judged(axis, points) if points else [],
                }
                for command, points in found.items()
            },
            "notes": list(notes),
        },
        indent=1,
    )
