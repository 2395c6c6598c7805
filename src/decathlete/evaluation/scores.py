"""The result of an evaluation: values of each case and structure, summaries and a headline; as JSON, CSV and text.

Two conventions for a structure that neither the truth nor the prediction has in a case: the *headline* leaves it out;
the figures ``with_absent`` count it with the value that the metric declares (Dice and NSD: 1). Where only one side has
it, Dice, IoU and NSD are 0 and HD95 is undefined (``null``), which is counted and shown. A structure that was not
annotated in a case has no value and counts nowhere.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from decathlete.core.choices import Grid
from decathlete.core.files import write_text
from decathlete.core.geometry import PIXEL, Unit
from decathlete.core.schema import Schema
from decathlete.errors import printable
from decathlete.evaluation.consistency import SIZES, reject_disagreement, scores_problems
from decathlete.evaluation.metric_info import UNLEARNED_DICE, MetricInfo, headline_metrics, main_metric
from decathlete.evaluation.metrics import Metric
from decathlete.evaluation.origin import ScoresOrigin
from decathlete.evaluation.scores_v1 import upgrade_scores

SCORES_STEMS: dict[Grid, str] = {"original": "scores", "prepared": "scores_prepared"}

Presence = Literal["both", "truth only", "prediction only", "neither", "not annotated"]
UNSCORED: tuple[Presence, ...] = ("neither", "not annotated")
"""Presence of a structure whose values the headline leaves out."""
Values = dict[str, float | None]
"""Registered name of a metric -> its value; ``None``: undefined."""
_ONE_UNIT: Any = Field(default=None, exclude_if=lambda size: size is None)
"""A field with the size of a structure: only those of one unit are set."""


class ClassScores(Schema):
    """One structure (class or region) of one case.

    Attributes:
        presence: which side has the structure at all.
        values: of each metric.
        truth_ml, prediction_ml: volumes, millilitres; ``None`` in files without a spacing.
        truth_px, prediction_px: sizes in pixels, in such files only.
    """

    name: str
    presence: Presence
    values: Values
    truth_ml: float | None = _ONE_UNIT
    prediction_ml: float | None = _ONE_UNIT
    truth_px: float | None = _ONE_UNIT
    prediction_px: float | None = _ONE_UNIT

    @property
    def dice(self) -> float | None:
        """Dice; ``None`` also where it was not computed."""
        return self.values.get("dice")


class CaseScores(Schema):
    """One case.

    Attributes:
        values: of each metric, the mean over the structures that have a value.
    """

    case_id: str
    values: Values
    classes: tuple[ClassScores, ...]

    @classmethod
    def of(cls, case_id: str, classes: Sequence[ClassScores]) -> Self:
        """Make the scores of a case from those of its structures (at least one)."""
        means = {name: mean(c.values[name] for c in classes) for name in classes[0].values}
        return cls(case_id=case_id, classes=tuple(classes), values=means)

    @property
    def dice(self) -> float | None:
        """Mean Dice; ``None`` also where it was not computed."""
        return self.values.get("dice")


class MetricStatistics(Schema):
    """Statistics of one metric over cases."""

    mean: float
    std: float
    median: float
    minimum: float
    maximum: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Self | None:
        """Compute statistics of the values that are defined; ``None``: none is. ``std`` is that of the population."""
        known = np.array([v for v in values if v is not None], dtype=np.float64)
        if not known.size:
            return None
        return cls(
            mean=float(known.mean()),
            std=float(known.std()),
            median=float(np.median(known)),
            minimum=float(known.min()),
            maximum=float(known.max()),
            n=int(known.size),
        )


class ClassSummary(Schema):
    """One structure over all cases.

    Attributes:
        values: statistics of each metric; ``None`` where no case has a value.
        with_absent: of each metric that declares a value for absent structures: the mean that counts ``n_absent``
            cases with it.
        n_both, n_missed, n_invented, n_absent: cases where both sides, only the truth, only the prediction, or
            neither has the structure.
        truth_ml, prediction_ml, truth_px, prediction_px: mean size over all cases, as of :class:`ClassScores`.
    """

    name: str
    values: dict[str, MetricStatistics | None]
    with_absent: Values
    n_both: int
    n_missed: int
    n_invented: int
    n_absent: int
    truth_ml: float | None = _ONE_UNIT
    prediction_ml: float | None = _ONE_UNIT
    truth_px: float | None = _ONE_UNIT
    prediction_px: float | None = _ONE_UNIT

    @classmethod
    def of(cls, scores: Sequence[ClassScores], metrics: Sequence[MetricInfo]) -> Self:
        """Summarise one structure by its scores in every case (at least one)."""
        annotated = [s for s in scores if s.presence != "not annotated"]
        counts = {p: sum(s.presence == p for s in scores) for p in ("both", "truth only", "prediction only", "neither")}
        return cls(
            name=scores[0].name,
            values={m.name: MetricStatistics.of(s.values[m.name] for s in scores) for m in metrics},
            with_absent={m.name: mean(map(_with_absent(m), scores)) for m in metrics if m.absent_value is not None},
            n_both=counts["both"],
            n_missed=counts["truth only"],
            n_invented=counts["prediction only"],
            n_absent=counts["neither"],
            **{
                size: mean(getattr(s, size) for s in annotated) or 0.0
                for size in SIZES
                if getattr(scores[0], size) is not None
            },
        )

    def mean(self, metric: str) -> float | None:
        """Return the mean of the values that are defined; ``None``: none is."""
        summary = self.values.get(metric)
        return None if summary is None else summary.mean


class Headline(Schema):
    """The figures to quote.

    A mean over cases is that of the mean over a case's structures; a structure that neither side has is left out of
    its case's mean, a case without any is left out of the mean over cases.

    Attributes:
        values: of each metric, the mean over cases or over pairs of case and structure, as the metric declares.
        with_absent: the second convention, of each metric that declares a value for absent structures.
        n_undefined: of each metric, pairs of case and structure without a value although a side has the structure.
        n_cases: evaluated.
        n_left_out: of these, cases without foreground on either side.
    """

    values: Values
    with_absent: Values
    n_undefined: dict[str, int]
    n_cases: int
    n_left_out: int

    @classmethod
    def of(cls, cases: Sequence[CaseScores], metrics: Sequence[MetricInfo]) -> Self:
        """Make the headline from all cases."""
        pairs = [s for c in cases for s in c.classes]
        over = {"cases": [c.values for c in cases], "pairs": [s.values for s in pairs]}
        present = [s for s in pairs if s.presence not in UNSCORED]
        return cls(
            values={m.name: mean(values[m.name] for values in over[m.headline_mean]) for m in metrics},
            with_absent={
                m.name: mean(mean(map(_with_absent(m), c.classes)) for c in cases)
                for m in metrics
                if m.absent_value is not None
            },
            n_undefined={m.name: sum(s.values[m.name] is None for s in present) for m in metrics},
            n_cases=len(cases),
            n_left_out=sum(all(s.presence in UNSCORED for s in c.classes) for c in cases),
        )

    @property
    def dice(self) -> float | None:
        """Mean Dice; ``None`` also where it was not computed."""
        return self.values.get("dice")


class Scores(Schema):
    """A whole evaluation, as ``scores.json`` holds it. Version 1 is read too.

    Attributes:
        metrics: in the order of columns.
        origin: what the scores are of; ``None`` for a folder of predictions of unknown origin.
        grid: on which they were computed. Scores on the prepared grid are no result to quote: they leave out what
            resampling and cropping cost.
        unit: of lengths. Where files have no spacing, a pixel counts as 1 mm, and sizes are numbers of pixels.
        cases: sorted by case id.
    """

    version: Literal[2] = 2
    metrics: tuple[MetricInfo, ...]
    headline: Headline
    origin: ScoresOrigin | None = None
    grid: Grid = "original"
    unit: Unit = Field(default="mm", exclude_if=lambda unit: unit == "mm")
    classes: tuple[ClassSummary, ...]
    cases: tuple[CaseScores, ...]

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, data: Any) -> Any:
        return upgrade_scores(data)

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        reject_disagreement(scores_problems(self))
        return self

    @classmethod
    def of(cls, cases: Iterable[CaseScores], metrics: Iterable[Metric | MetricInfo], *, unit: Unit = "mm") -> Self:
        """Make the scores from cases (at least one) that all have the same structures and these metrics."""
        ordered = sorted(cases, key=lambda c: c.case_id)
        infos = tuple((m if isinstance(m, MetricInfo) else MetricInfo.of(m)).in_unit(unit) for m in metrics)
        by_class = zip(*(c.classes for c in ordered), strict=True)
        return cls(
            metrics=infos,
            headline=Headline.of(ordered, infos),
            unit=unit,
            classes=tuple(ClassSummary.of(scores, infos) for scores in by_class),
            cases=tuple(ordered),
        )

    @property
    def is_in_pixels(self) -> bool:
        """Whether lengths are in pixels, since the files have no spacing."""
        return self.unit == PIXEL

    def sizes(self, structure: ClassScores | ClassSummary) -> tuple[float, float]:
        """Return the true and the predicted size of a structure: numbers of pixels, or volumes in millilitres."""
        px = (structure.truth_px, structure.prediction_px)
        truth, prediction = px if self.is_in_pixels else (structure.truth_ml, structure.prediction_ml)
        assert truth is not None  # for the type checker: both are checked
        assert prediction is not None
        return truth, prediction

    @property
    def stem(self) -> str:
        """Stem of the files' names: scores on another grid are never written to ``scores.json``."""
        return SCORES_STEMS[self.grid]

    @property
    def main_metric(self) -> MetricInfo:
        """The metric that ranks cases: Dice, or the first one where there is no Dice."""
        return main_metric(self.metrics)

    @property
    def unlearned(self) -> list[str]:
        """The structures whose mean Dice is below :data:`UNLEARNED_DICE`; none where Dice was not computed."""
        dice = [(summary.name, summary.values.get("dice")) for summary in self.classes]
        return [name for name, found in dice if found is not None and found.mean < UNLEARNED_DICE]

    @property
    def headline_metrics(self) -> tuple[MetricInfo, ...]:
        """The metrics of the headline line, the main one first."""
        return headline_metrics(self.metrics)

    def ranked(self) -> list[CaseScores]:
        """Return all cases, the worst by the main metric first; those without a value last."""
        sign = 1 if self.main_metric.direction == "higher" else -1
        name = self.main_metric.name
        return sorted(self.cases, key=lambda c: (c.values[name] is None, sign * (c.values[name] or 0.0), c.case_id))

    def headline_line(self) -> str:
        """Return the headline, for example ``mean Dice 0.873 · NSD 0.912 · HD95 1.40 mm · 41 cases``."""
        h = self.headline
        cases = f"{h.n_cases} case" + ("s" if h.n_cases != 1 else "")
        if h.n_left_out:
            cases += f" ({h.n_left_out} without foreground left out)"
        where = "" if self.grid == "original" else " · on the prepared grid, not the files' own"
        return f"mean {' · '.join(self._headline_figure(m) for m in self.headline_metrics)} · {cases}{where}"

    def _headline_figure(self, metric: MetricInfo) -> str:
        value, n_undefined = self.headline.values[metric.name], self.headline.n_undefined[metric.name]
        figure = metric.format(value) + (f" {metric.unit}" if metric.unit and value is not None else "")
        return f"{metric.title} {figure}" + (f" (undefined {n_undefined}x)" if n_undefined else "")

    def table(self) -> str:
        """Return a table for a terminal: for each structure the means, and how often only one side has it."""
        width = max(len("class"), *(len(c.name) for c in self.classes))
        widths = [max(5, len(m.heading) + 1) for m in self.metrics]
        head = [f"{m.heading:>{w}}" for m, w in zip(self.metrics, widths, strict=True)]
        lines = ["  ".join([f"{'class':{width}}", *head, f"{'missed':>7}  {'invented':>8}  {'absent':>6}"])]
        for c in self.classes:
            means = [
                f"{m.format(c.mean(m.name), undefined='-'):>{w}}" for m, w in zip(self.metrics, widths, strict=True)
            ]
            counts = f"{c.n_missed:>7}  {c.n_invented:>8}  {c.n_absent:>6}"
            lines.append("  ".join([f"{c.name:{width}}", *means, counts]))
        return "\n".join(lines)

    def save_files(self, folder: Path) -> None:
        """Write ``scores.json`` and ``scores.csv`` into ``folder`` (``scores_prepared`` on the prepared grid)."""
        self.save(folder / f"{self.stem}.json")
        self.save_csv(folder / f"{self.stem}.csv")

    def save_csv(self, path: Path) -> None:
        """Write one row per case and structure; undefined values are empty."""
        rows = io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        names = [m.name for m in self.metrics]
        unit = "px" if self.is_in_pixels else "ml"
        writer.writerow(["case", "class", "presence", *names, f"truth_{unit}", f"prediction_{unit}", "grid"])
        for case in self.cases:
            for s in case.classes:
                figures = [*(s.values[name] for name in names), *self.sizes(s)]
                cells = ["" if v is None else f"{v:.6g}" for v in figures]
                writer.writerow([case.case_id, s.name, s.presence, *cells, self.grid])
        write_text(path, printable(rows.getvalue()))


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are defined; ``None``: none is."""
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _with_absent(metric: MetricInfo) -> Callable[[ClassScores], float | None]:
    def value(scores: ClassScores) -> float | None:
        return metric.absent_value if scores.presence == "neither" else scores.values[metric.name]

    return value
