"""The outcome as a table in Markdown and as JSON, with the machine and the versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from common.machine import machine, versions
from rounds import Outcome
from workload import Environment, Work, Workload


def markdown(workload: Workload, work: Work, outcomes: Sequence[Outcome], agreement: Sequence[str]) -> str:
    """One workload's table: medians, spread, ratios against the first contender, peak memory, notes."""
    ours = next((outcome for outcome in outcomes if outcome.contender == "ours"), None)
    n_rounds = max(len(outcome.amounts) for outcome in outcomes)
    better = "fewer" if workload.lower_is_better else "more"
    lines = [
        f"## {workload.title}",
        "",
        f"{_said(work)}. {workload.unit}, {better} is better; medians of {n_rounds} rounds, each contender in "
        "turn in a process of its own.",
        "",
        "| contender | median | lowest to highest | ours is better by | peak memory | notes |",
        "|---|---|---|---|---|---|",
        *(_row(outcome, ours, lower=workload.lower_is_better) for outcome in outcomes),
        "",
        *(f"- {line}" for line in agreement),
    ]
    return "\n".join(lines) + "\n"


def _row(outcome: Outcome, ours: Outcome | None, *, lower: bool) -> str:
    if outcome.absent:
        return f"| {outcome.contender} | not run | | | | {outcome.absent} |"
    if not outcome.amounts:
        reason = (outcome.failure or "").splitlines()[-1:] or ["no result"]
        return f"| {outcome.contender} | failed | | | | {reason[0]} |"
    said = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in outcome.notes.items()]
    notes = ", ".join([*said, f"failed after {len(outcome.amounts)} round(s)"] if outcome.failure else said)
    return (
        f"| {outcome.contender} | {outcome.median:.4g} | {min(outcome.amounts):.4g} to {max(outcome.amounts):.4g} "
        f"| {_ratio(outcome, ours, lower=lower)} | {outcome.peak_bytes / 2**30:.2f} GiB | {notes} |"
    )


def _ratio(outcome: Outcome, ours: Outcome | None, *, lower: bool) -> str:
    if ours is None or outcome is ours or not ours.amounts:
        return ""
    more, less = (outcome.median, ours.median) if lower else (ours.median, outcome.median)
    return f"{more / less:.2f} x" if less else ""


def public(work: Work) -> Work:
    """The work as records tell it: without where the data lie, other folders of this machine by their names alone."""
    return {
        key: Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
        for key, value in work.items()
        if key != "data"
    }


def _said(work: Work) -> str:
    return "; ".join(f"{key}: {value}" for key, value in work.items())


def record(
    workload: Workload,
    work: Work,
    outcomes: Sequence[Outcome],
    agreement: Sequence[str],
    *,
    pythons: Mapping[Environment, Path],
    cores: Sequence[int],
) -> str:
    """All of it as JSON."""
    return json.dumps(
        {
            "workload": workload.name,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "unit": workload.unit,
            "work": dict(work),
            "machine": machine(cores),
            "versions": {name: versions(python) for name, python in pythons.items()},
            "outcomes": [asdict(outcome) for outcome in outcomes],
            "agreement": list(agreement),
        },
        indent=1,
    )
