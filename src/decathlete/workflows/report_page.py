"""Collects the content of a report: scores, charts, pictures of cases, and the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from decathlete.core.durations import format_duration
from decathlete.core.geometry import PIXEL
from decathlete.errors import DecathleteError
from decathlete.evaluation.scores import CaseScores, Scores
from decathlete.planning.explain import plan_rows, region_lines
from decathlete.planning.plan import Plan, Range
from decathlete.training.reporting.records import Logs
from decathlete.version import __version__
from decathlete.workflows import report_charts as charts
from decathlete.workflows.report_data import RunData
from decathlete.workflows.report_pictures import View, make_case_views, shown_channels

Facts = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class CasePictures:
    """Pictures of the best, median or worst case."""

    rank: str
    scores: CaseScores
    views: list[View]


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """A setting of the plan and its reasons."""

    title: str
    value: str
    reasons: list[str]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Content of the template.

    Attributes:
        colours: class or region -> hex colour.
        ranked: all cases with foreground, the lowest Dice first.
        channel: name of the channel in the pictures, or of the three that are shown as colours.
        is_oriented: whether the directions in the pictures are known, as of medical images.
    """

    title: str
    subtitle: str
    notes: list[str]
    warnings: Mapping[str, tuple[str, ...]]
    scores: Scores | None
    colours: Mapping[str, str]
    ranked: list[CaseScores]
    distribution: Markup | None
    pictures: list[CasePictures]
    channel: str
    is_oriented: bool
    curves: list[Markup]
    training: Facts
    plan: list[PlanRow]
    data: Facts
    provenance: Facts


def make_page(run: RunData) -> Page:
    """Collect the content of the report of a run."""
    notes = list(run.notes)
    plan = run.model.output_plan if run.model else None
    colours = _colours(plan, run.scores)
    ranked = rank_cases(run.scores) if run.scores else []
    pictures = _pictures(run, plan, ranked, list(colours.values()), notes)
    return Page(
        title=_title(run, plan),
        subtitle=_subtitle(run, plan),
        notes=notes,
        warnings=run.warnings,
        scores=run.scores,
        colours=colours,
        ranked=ranked,
        distribution=Markup(charts.draw_distribution(run.scores)) if run.scores else None,
        pictures=pictures,
        channel=_shown(run, plan, pictures),
        is_oriented=any(tile.letters for case in pictures for view in case.views for tile in view.tiles),
        curves=_curves(run.logs),
        training=_training(run),
        plan=[PlanRow(title=t, value=v, reasons=_reasons(plan, keys)) for t, v, keys in plan_rows(plan)]
        if plan
        else [],
        data=_data(run, plan),
        provenance=_provenance(run),
    )


def rank_cases(scores: Scores) -> list[CaseScores]:
    """Sort the cases by the main metric, the worst first. Cases without a value are left out."""
    return [c for c in scores.ranked() if c.values[scores.main_metric.name] is not None]


def _title(run: RunData, plan: Plan | None) -> str:
    return plan.dataset if plan else run.record.dataset if run.record else run.folder.name


def _subtitle(run: RunData, plan: Plan | None) -> str:
    dims = plan.dims if plan else run.record.dims if run.record else None
    fold = ""
    if run.record:
        fold = "trained on every case" if run.record.fold == "all" else f"fold {run.record.fold}"
    return " · ".join(part for part in (f"{dims}D model" if dims else "", fold) if part)


def _colours(plan: Plan | None, scores: Scores | None) -> dict[str, str]:
    names = [c.name for c in scores.classes] if scores else []
    if plan:
        names = [structure.name for structure in plan.labels.structures]
    return dict(zip(names, charts.make_class_colours(len(names)), strict=True))


def _pictures(
    run: RunData, plan: Plan | None, ranked: list[CaseScores], colours: list[str], notes: list[str]
) -> list[CasePictures]:
    if plan is None:
        return []
    pictures = []
    for title, scores in _select_cases(ranked):
        case, prediction = run.cases.get(scores.case_id), run.predictions.get(scores.case_id)
        if case is None or prediction is None:
            continue
        try:
            views = make_case_views(case, prediction, plan, colours)
        except (DecathleteError, OSError) as problem:
            notes.append(f"No pictures of {scores.case_id}: {_first_line(problem)}")
            continue
        pictures.append(CasePictures(rank=title, scores=scores, views=views))
    return pictures


def _shown(run: RunData, plan: Plan | None, pictures: list[CasePictures]) -> str:
    """Return the names of the channels in the pictures."""
    return ", ".join(shown_channels(run.cases[pictures[0].scores.case_id], plan)) if plan and pictures else ""


def _select_cases(ranked: list[CaseScores]) -> list[tuple[str, CaseScores]]:
    """Select the best, the median and the worst case, each case once."""
    if not ranked:
        return []
    picks = {len(ranked) - 1: "Best", len(ranked) // 2: "Median", 0: "Worst"}
    if len(ranked) <= 2:
        picks = {len(ranked) - 1: "Best", 0: "Worst"} if len(ranked) == 2 else {0: "Only"}
    return [(f"{title} case", ranked[index]) for index, title in picks.items()]


def _first_line(problem: Exception) -> str:
    # Without the path, which may identify the patient.
    return problem.problem if isinstance(problem, DecathleteError) else type(problem).__name__


def _curves(logs: Logs | None) -> list[Markup]:
    if logs is None or not logs.epochs:
        return []
    curves = [Markup(charts.draw_losses(logs))]
    if any(e.mean_dice is not None for e in logs.epochs):
        curves.append(Markup(charts.draw_dice(logs)))
    return [*curves, Markup(charts.draw_learning_rate(logs))]


def _training(run: RunData) -> Facts:
    facts: Facts = []
    if run.logs and run.logs.epochs:
        last = run.logs.epochs[-1]
        rates = [e.patches_per_second for e in run.logs.epochs]
        facts += [
            ("Time", format_duration(last.elapsed)),
            ("Steps", f"{last.step} in {last.epoch + 1} epochs"),
            ("Speed", f"{np.median(rates):.1f} patches/s (median)"),
            ("Skipped steps", str(sum(e.skipped_steps for e in run.logs.epochs))),
        ]
        if last.best_dice is not None and last.best_epoch is not None:
            facts.append(("Best in validation", f"Dice {last.best_dice:.3f}, epoch {last.best_epoch + 1}"))
    if run.record:
        config = run.record.config
        # The precision that was used; the config may have auto.
        used = run.model.training_provenance.get("precision") if run.model else None
        precision = str(used or config.precision)
        facts += [
            ("Optimizer", config.optimizer.component),
            ("Schedule", config.schedule.component),
            ("Precision", precision),
        ]
    if run.model:
        facts.append(("Weights", f"{run.model.weights}"))
    return facts


def _reasons(plan: Plan, keys: tuple[str, ...]) -> list[str]:
    return [plan.reasons[key] for key in keys if plan.reasons.get(key)]


def _data(run: RunData, plan: Plan | None) -> Facts:
    facts: Facts = []
    if run.record:
        facts += [("Training cases", str(len(run.record.train))), ("Held-out cases", str(len(run.record.val)))]
    if plan:
        in_pixels = plan.spacing_unit == PIXEL
        facts += [
            ("Channels", ", ".join(_input_channels(plan))),
            ("Classes", ", ".join(f"{c.name} ({c.value})" for c in plan.labels.foreground)),
            *([("Regions", "; ".join(lines))] if (lines := region_lines(plan.labels)) else []),
            ("Spacing", "none in the files" if in_pixels else _ranges(plan.training_ranges.spacing, "mm")),
            ("Extent", _ranges(plan.training_ranges.size, "px" if in_pixels else "mm")),
        ]
    return facts


def _input_channels(plan: Plan) -> list[str]:
    foreground = ["foreground mask"] if plan.foreground_channel else []
    previous = [f"prediction of {plan.previous_stage}"] if plan.previous_stage else []
    return [*plan.channels, *foreground, *previous]


def _ranges(ranges: tuple[Range, ...], unit: str) -> str:
    return (
        " × ".join(
            _length(r.low) if np.isclose(r.low, r.high) else f"{_length(r.low)}–{_length(r.high)}" for r in ranges
        )
        + f" {unit}"
    )


def _length(value: float) -> str:
    """Format a length with three digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _provenance(run: RunData) -> Facts:
    facts: Facts = [("Report written by", f"Decathlete {__version__}")]
    if run.record:
        facts += [("Trained by", f"Decathlete {run.record.version}"), ("Started", _time(run.record.started))]
        if run.record.finished:
            facts.append(("Finished", _time(run.record.finished)))
        facts += [("Seed", str(run.record.config.seed)), ("Plan", run.record.plan_digest)]
        facts.append(("Dataset digest", run.record.dataset_digest))
    if run.model:
        facts += [
            (key.replace("_", " ").capitalize(), str(value))
            for key, value in run.model.training_provenance.items()
            if _is_shown(value)
        ]
    unique: dict[str, str] = {}
    for title, value in facts:
        unique.setdefault(title, value)
    return list(unique.items())


def _is_shown(value: object) -> bool:
    """Return whether a value is short and not a path, which may identify a person."""
    return isinstance(value, str | int | float) and len(str(value)) < 80 and "/" not in str(value)


def _time(iso: str) -> str:
    return iso[:16].replace("T", " ") + " UTC"
