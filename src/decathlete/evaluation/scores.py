"""What an evaluation says: per case and class, per class, and one headline; as JSON, CSV and a line of text.

Two conventions for a class that neither the truth nor the prediction has in a case: the *headline* leaves it out;
the *absent-as-one* figures count it as Dice and NSD 1. Where only one side has it, Dice, IoU and NSD are 0 and HD95
is undefined (``null``), which is counted and shown.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field

from decathlete.core.choices import Grid
from decathlete.core.files import write_text
from decathlete.core.schema import Schema
from decathlete.evaluation.origin import ScoresOrigin

SCORES_VERSION = 1

SCORES_STEMS: dict[Grid, str] = {"original": "scores", "prepared": "scores_prepared"}

Presence = Literal["both", "truth only", "prediction only", "neither"]
Metric = Literal["dice", "iou", "nsd", "hd95_mm"]
METRICS: tuple[Metric, ...] = ("dice", "iou", "nsd", "hd95_mm")


class ClassScores(Schema):
    """One class (or region) of one case.

    Attributes:
        presence: which side has the class at all.
        dice, iou, nsd: 0..1, ``None`` when neither side has the class.
        hd95_mm: ``None`` unless both sides have the class.
        truth_ml, prediction_ml: volumes, millilitres.
    """

    name: str
    presence: Presence
    dice: float | None
    iou: float | None
    nsd: float | None
    hd95_mm: float | None
    truth_ml: float
    prediction_ml: float


class CaseScores(Schema):
    """One case; its own figures are means over the classes that have a value."""

    case_id: str
    dice: float | None
    iou: float | None
    nsd: float | None
    hd95_mm: float | None
    classes: tuple[ClassScores, ...]

    @classmethod
    def of(cls, case_id: str, classes: Sequence[ClassScores]) -> Self:
        """From the classes of one case."""
        means = {metric: mean(getattr(c, metric) for c in classes) for metric in METRICS}
        return cls(case_id=case_id, classes=tuple(classes), **means)


class Statistics(Schema):
    """Of one metric over cases."""

    mean: float
    std: float
    median: float
    minimum: float
    maximum: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Self | None:
        """Over the values that are defined; ``None`` when none is. ``std`` is that of the population."""
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
    """One class over all cases.

    Attributes:
        n_both, n_missed, n_invented, n_absent: cases where both sides, only the truth, only the prediction, or
            neither has the class. HD95 is undefined in the second and third.
        dice_absent_as_one, nsd_absent_as_one: means that count ``n_absent`` cases as 1.
    """

    name: str
    dice: Statistics | None
    iou: Statistics | None
    nsd: Statistics | None
    hd95_mm: Statistics | None
    dice_absent_as_one: float | None
    nsd_absent_as_one: float | None
    n_both: int
    n_missed: int
    n_invented: int
    n_absent: int
    truth_ml: float = Field(description="mean volume over all cases")
    prediction_ml: float = Field(description="mean volume over all cases")

    @classmethod
    def of(cls, scores: Sequence[ClassScores]) -> Self:
        """From one class' scores in every case (at least one)."""
        counts = {p: sum(s.presence == p for s in scores) for p in ("both", "truth only", "prediction only", "neither")}
        return cls(
            name=scores[0].name,
            **{metric: Statistics.of(getattr(s, metric) for s in scores) for metric in METRICS},
            dice_absent_as_one=mean(map(_absent_as_one("dice"), scores)),
            nsd_absent_as_one=mean(map(_absent_as_one("nsd"), scores)),
            n_both=counts["both"],
            n_missed=counts["truth only"],
            n_invented=counts["prediction only"],
            n_absent=counts["neither"],
            truth_ml=float(np.mean([s.truth_ml for s in scores])),
            prediction_ml=float(np.mean([s.prediction_ml for s in scores])),
        )


class Headline(Schema):
    """The figures to quote.

    Every mean is over cases, of the mean over a case's foreground classes (regions, where the labels have them); a
    class that neither side has is left out of its case's mean, a case without any is left out of the mean over cases.

    Attributes:
        hd95_mm: over the pairs of case and class where it is defined.
        n_cases: evaluated.
        n_left_out: of these, cases without foreground on either side.
        n_hd95_undefined: pairs of case and class that only one side has.
        dice_absent_as_one, nsd_absent_as_one: the second convention.
    """

    dice: float | None
    nsd: float | None
    hd95_mm: float | None
    iou: float | None
    n_cases: int
    n_left_out: int
    n_hd95_undefined: int
    dice_absent_as_one: float | None
    nsd_absent_as_one: float | None

    @classmethod
    def of(cls, cases: Sequence[CaseScores]) -> Self:
        """From all cases."""
        return cls(
            **{metric: mean(getattr(c, metric) for c in cases) for metric in METRICS},
            n_cases=len(cases),
            n_left_out=sum(c.dice is None for c in cases),
            n_hd95_undefined=sum(s.presence in ("truth only", "prediction only") for c in cases for s in c.classes),
            dice_absent_as_one=mean(mean(map(_absent_as_one("dice"), c.classes)) for c in cases),
            nsd_absent_as_one=mean(mean(map(_absent_as_one("nsd"), c.classes)) for c in cases),
        )


class Scores(Schema):
    """A whole evaluation.

    Attributes:
        origin: what the scores are of; ``None`` for a folder of predictions whose making is not known.
        grid: that they were taken on. Those on the prepared grid are no result to quote: they leave out what resampling
            and cropping cost.
        tolerance_mm: of the normalised surface Dice.
        cases: sorted by case id.
    """

    version: int = SCORES_VERSION
    headline: Headline
    origin: ScoresOrigin | None = None
    grid: Grid = "original"
    tolerance_mm: float
    classes: tuple[ClassSummary, ...]
    cases: tuple[CaseScores, ...]

    @classmethod
    def of(cls, cases: Iterable[CaseScores], *, tolerance_mm: float) -> Self:
        """From the cases (at least one), all with the same classes."""
        ordered = sorted(cases, key=lambda c: c.case_id)
        by_class = zip(*(c.classes for c in ordered), strict=True)
        return cls(
            headline=Headline.of(ordered),
            tolerance_mm=tolerance_mm,
            classes=tuple(ClassSummary.of(scores) for scores in by_class),
            cases=tuple(ordered),
        )

    @property
    def stem(self) -> str:
        """Of the files' names: scores of another grid never stand in ``scores.json``."""
        return SCORES_STEMS[self.grid]

    def headline_line(self) -> str:
        """For example ``mean Dice 0.873 · NSD 0.912 · HD95 1.40 mm · 41 cases``."""
        h = self.headline
        hd95 = "undefined" if h.hd95_mm is None else f"{h.hd95_mm:.2f} mm"
        if h.n_hd95_undefined:
            hd95 += f" (undefined {h.n_hd95_undefined}x)"
        cases = f"{h.n_cases} case" + ("s" if h.n_cases != 1 else "")
        if h.n_left_out:
            cases += f" ({h.n_left_out} without foreground left out)"
        where = "" if self.grid == "original" else " · on the prepared grid, not the files' own"
        return f"mean Dice {_three(h.dice)} · NSD {_three(h.nsd)} · HD95 {hd95} · {cases}{where}"

    def table(self) -> str:
        """A line per class for a terminal: means, and how often only one side has the class."""
        width = max(len("class"), *(len(c.name) for c in self.classes))
        lines = [f"{'class':{width}}   Dice    IoU    NSD   HD95 mm   missed  invented  absent"]
        for c in self.classes:
            dice, iou, nsd = (f"{s.mean:.3f}" if s else "-" for s in (c.dice, c.iou, c.nsd))
            hd95 = f"{c.hd95_mm.mean:.2f}" if c.hd95_mm else "-"
            lines.append(
                f"{c.name:{width}}  {dice:>5}  {iou:>5}  {nsd:>5}  {hd95:>8}  "
                f"{c.n_missed:>7}  {c.n_invented:>8}  {c.n_absent:>6}"
            )
        return "\n".join(lines)

    def save_files(self, folder: Path) -> None:
        """``scores.json`` and ``scores.csv`` in ``folder`` (``scores_prepared`` for those on the prepared grid)."""
        self.save(folder / f"{self.stem}.json")
        self.save_csv(folder / f"{self.stem}.csv")

    def save_csv(self, path: Path) -> None:
        """One row per case and class; undefined values are empty."""
        rows = io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(["case", "class", "presence", *METRICS, "truth_ml", "prediction_ml", "grid"])
        for case in self.cases:
            for s in case.classes:
                figures = [s.dice, s.iou, s.nsd, s.hd95_mm, s.truth_ml, s.prediction_ml]
                cells = ["" if v is None else f"{v:.6g}" for v in figures]
                writer.writerow([case.case_id, s.name, s.presence, *cells, self.grid])
        write_text(path, rows.getvalue())


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are defined, ``None`` when none is."""
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _absent_as_one(metric: Literal["dice", "nsd"]) -> Callable[[ClassScores], float | None]:
    def value(scores: ClassScores) -> float | None:
        return 1.0 if scores.presence == "neither" else getattr(scores, metric)

    return value


def _three(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
