"""A selection in words: the comparison, the reason, and the decisions on post-processing."""

from __future__ import annotations

from collections.abc import Sequence

from decathlete.core.durations import format_duration
from decathlete.core.geometry import Unit
from decathlete.workflows.folds import format_folds
from decathlete.workflows.selection.postprocessing import describe_step
from decathlete.workflows.selection.record import CandidateRecord, Selection, StepDecision


def explain_choice(selection: Selection) -> str:
    """Return why a candidate was selected, and how clear its lead is."""
    best = selection.selected_candidate
    n_cases = sum(len(cases) for cases in selection.held_out.values())
    reason = f"{best.name} has the highest mean Dice of the {n_cases} held-out cases, {best.dice or 0:.3f}"
    others = [c for c in selection.candidates if c is not best and c.dice is not None]
    allowed = [c for c in others if c.excluded is None]
    if better := [c.name for c in others if (c.dice or 0) > (best.dice or 0)]:
        reason += f" within --max-members {selection.max_members} ({', '.join(better)} would need more)"
    if not allowed or allowed[0].behind is None:
        return f"{reason}; nothing else was compared" if not others else reason
    second = allowed[0]
    assert second.behind is not None  # for the type checker
    clear = "a clear difference" if second.behind.high < 0 else "no clear difference in these cases"
    return f"{reason}; the next is {second.name}: {second.behind}, {clear}"


def describe_time(candidate: CandidateRecord, device: str) -> str:
    """Return the number of networks and the estimated time of a prediction."""
    networks = f"{candidate.networks} network" + ("s" if candidate.networks != 1 else "")
    if candidate.seconds_per_case is None:
        return networks
    return f"{networks}, about {format_duration(candidate.seconds_per_case)} per image on {device}"


def describe_decision(decision: StepDecision, unit: Unit) -> str:
    """Return one line about a step of post-processing."""
    gain = f": Dice {decision.gain}" if decision.gain is not None else ""
    return f"{decision.structure}, {describe_step(decision.step, unit)}{gain}; {decision.reason}"


def summarize(selection: Selection) -> str:
    """Return the comparison as a table for a terminal, the reason, and the post-processing that is used."""
    rows: list[tuple[str, ...]] = [("", "mean Dice", "networks", "time per image", "compared with the selected")]
    rows += [_row(candidate, selected=candidate.name == selection.selected) for candidate in selection.candidates]
    best = selection.selected_candidate
    lines = [
        *_aligned(rows),
        "",
        f"selected: {selection.reason}",
        f"prediction: {describe_time(best, selection.device)} (folds {format_folds(best.folds)})",
        *_postprocessing_lines(selection),
    ]
    return "\n".join(lines)


def _row(candidate: CandidateRecord, *, selected: bool) -> tuple[str, ...]:
    seconds = candidate.seconds_per_case
    compared = "selected" if selected else candidate.excluded or (str(candidate.behind) if candidate.behind else "")
    return (
        candidate.name,
        "-" if candidate.dice is None else f"{candidate.dice:.3f}",
        str(candidate.networks) if candidate.folds else "-",
        "-" if seconds is None else format_duration(seconds),
        compared,
    )


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _postprocessing_lines(selection: Selection) -> list[str]:
    decision = selection.postprocessing
    if decision.total is None:
        return [f"post-processing: none ({decision.note or 'no step clearly helps in the held-out cases'})"]
    used = [f"  {describe_decision(step, selection.unit)}" for step in decision.tried if step.used]
    return [f"post-processing: mean Dice {decision.total}", *used]
