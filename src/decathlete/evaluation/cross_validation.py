"""The scores of several folds together, in two ways: over folds and over cases.

*Over folds*: mean and standard deviation of the folds' own means, each fold counting alike; the spread says how much a
model depends on what it was trained on. *Pooled*: all held-out cases as one evaluation, each case counted once; its
spread is that of patients. Folds of different sizes make the two means differ a little.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from decathlete.core.files import write_text
from decathlete.core.schema import Schema
from decathlete.errors import DatasetError
from decathlete.evaluation.origin import ScoresOrigin
from decathlete.evaluation.scores import METRICS, CaseScores, Metric, Scores, Statistics

CROSS_VALIDATION_VERSION = 1
OVERALL = "all classes"
"""How the mean over a case's classes is called in tables."""

REMEDY = "train the folds that differ again, with --overwrite"


class Means(Schema):
    """Of one class over the cases of one fold; ``None`` where no case has a value."""

    name: str
    dice: float | None
    iou: float | None
    nsd: float | None
    hd95_mm: float | None


class Spread(Schema):
    """Mean and standard deviation (of the population) of one class, over folds or over cases."""

    name: str
    dice: Statistics | None
    iou: Statistics | None
    nsd: Statistics | None
    hd95_mm: Statistics | None

    @classmethod
    def of(cls, name: str, items: Sequence[Means | CaseScores]) -> Self:
        """Over ``items``, each counting once in every metric that it has."""
        return cls(name=name, **{metric: Statistics.of(getattr(i, metric) for i in items) for metric in METRICS})

    def cell(self, metric: Metric, *, of: int) -> str:
        """``0.873 ± 0.012``; where fewer than ``of`` have a value, how many have."""
        found: Statistics | None = getattr(self, metric)
        if found is None:
            return "undefined"
        digits = 2 if metric == "hd95_mm" else 3
        few = f" (of {found.n})" if found.n < of else ""
        return f"{found.mean:.{digits}f} ± {found.std:.{digits}f}{few}"


class FoldScores(Schema):
    """What one fold adds.

    Attributes:
        cases: ids of its held-out cases; their scores are among the pooled ones.
        overall: means over these cases of the mean over a case's classes.
        origin: what its scores are of.
    """

    fold: int
    cases: tuple[str, ...]
    overall: Means
    classes: tuple[Means, ...]
    origin: ScoresOrigin | None

    @classmethod
    def of(cls, fold: int, scores: Scores) -> Self:
        """From a fold's ``scores.json``."""
        summaries = [(c.name, {m: s.mean if (s := getattr(c, m)) else None for m in METRICS}) for c in scores.classes]
        return cls(
            fold=fold,
            cases=tuple(c.case_id for c in scores.cases),
            overall=Means(name=OVERALL, **{m: getattr(scores.headline, m) for m in METRICS}),
            classes=tuple(Means(name=name, **means) for name, means in summaries),
            origin=scores.origin,
        )


class CrossValidation(Schema):
    """A cross-validation, as ``cross_validation.json`` holds it.

    Attributes:
        n_folds: of the split.
        folds: those that are scored, in order.
        failed: fold -> why it has no scores.
        overall, classes: over folds.
        pooled: all held-out cases of these folds as one evaluation.
    """

    version: int = CROSS_VALIDATION_VERSION
    dataset: str
    dims: int
    n_folds: int
    folds: tuple[FoldScores, ...]
    failed: dict[int, str] = {}
    overall: Spread
    classes: tuple[Spread, ...]
    pooled: Scores

    @classmethod
    def of(cls, scores: Mapping[int, Scores], **about: Any) -> Self:
        """From the scores of each fold (at least one).

        Args:
            about: ``dataset``, ``dims``, ``n_folds``, ``failed``.

        Raises:
            DatasetError: the folds do not belong together: a case is held out twice, or classes or tolerance differ.
        """
        _check_together(scores)
        folds = tuple(FoldScores.of(fold, scores[fold]) for fold in sorted(scores))
        every_case = [case for fold in scores.values() for case in fold.cases]
        by_class = zip(*(fold.classes for fold in folds), strict=True)
        return cls(
            folds=folds,
            overall=Spread.of(OVERALL, [fold.overall for fold in folds]),
            classes=tuple(Spread.of(means[0].name, means) for means in by_class),
            pooled=Scores.of(every_case, tolerance_mm=next(iter(scores.values())).tolerance_mm),
            **about,
        )

    @property
    def over_folds(self) -> tuple[Spread, ...]:
        """Each class, then the mean over classes, over folds."""
        return (*self.classes, self.overall)

    @property
    def over_cases(self) -> tuple[Spread, ...]:
        """Each class, then the mean over classes, over all cases."""
        classes = [Spread(name=c.name, **{m: getattr(c, m) for m in METRICS}) for c in self.pooled.classes]
        return (*classes, Spread.of(OVERALL, self.pooled.cases))

    def headline_line(self) -> str:
        """For example ``mean Dice 0.873 ± 0.012 · NSD ... · HD95 ... mm · 5 folds · 41 cases, pooled Dice 0.871``."""
        dice, nsd, hd95 = (self.overall.cell(m, of=len(self.folds)) for m in ("dice", "nsd", "hd95_mm"))
        folds = _count(len(self.folds), "fold")
        if self.failed:
            folds += f" of {len(self.folds) + len(self.failed)}"
        pooled = self.pooled.headline
        together = "" if pooled.dice is None else f", pooled Dice {pooled.dice:.3f}"
        return f"mean Dice {dice} · NSD {nsd} · HD95 {hd95} mm · {folds} · {_count(pooled.n_cases, 'case')}{together}"

    def table(self) -> str:
        """For a terminal: a line per class, over folds and over all cases."""
        n_folds, n_cases = len(self.folds), self.pooled.headline.n_cases
        over_folds = _lines(f"mean ± std over {_count(n_folds, 'fold')}", self.over_folds, n_folds)
        pooled = _lines(f"mean ± std over {_count(n_cases, 'case')}", self.over_cases, n_cases)
        return "\n".join([*over_folds, "", *pooled])

    def save_csv(self, path: Path) -> None:
        """A row per class for each fold, for mean and std over folds, and for mean and std over all cases."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["class", "of", *METRICS])
        for number, spread in enumerate(self.over_folds):
            for fold in self.folds:
                means = (*fold.classes, fold.overall)[number]
                writer.writerow([spread.name, f"fold {fold.fold}", *_csv(means, METRICS)])
            for words, found in (("folds", spread), ("cases", self.over_cases[number])):
                for statistic in ("mean", "std"):
                    figures = [getattr(getattr(found, m), statistic, None) for m in METRICS]
                    writer.writerow([spread.name, f"{statistic} over {words}", *map(_csv_cell, figures)])
        write_text(path, text.getvalue())


def _check_together(scores: Mapping[int, Scores]) -> None:
    first = next(iter(scores.values()))
    held_out: dict[str, int] = {}
    for fold, found in scores.items():
        if [c.name for c in found.classes] != [c.name for c in first.classes]:
            raise DatasetError(f"fold {fold} is scored on other classes than the rest", remedy=REMEDY)
        if found.tolerance_mm != first.tolerance_mm:
            raise DatasetError(
                f"fold {fold} is scored with a tolerance of {found.tolerance_mm:g} mm, others with "
                f"{first.tolerance_mm:g} mm",
                remedy="score it again with `decathlete validate --overwrite`",
            )
        for case in found.cases:
            if (other := held_out.setdefault(case.case_id, fold)) != fold:
                raise DatasetError(
                    f"{case.case_id} is held out in folds {other} and {fold}: they come from different splits",
                    remedy=REMEDY,
                )


def _lines(title: str, spreads: Sequence[Spread], n: int) -> list[str]:
    metrics: tuple[tuple[Metric, str], ...] = (("dice", "Dice"), ("nsd", "NSD"), ("hd95_mm", "HD95 mm"))
    rows = [[title, *(words for _, words in metrics)]]
    rows += [[spread.name, *(spread.cell(metric, of=n) for metric, _ in metrics)] for spread in spreads]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _csv(means: Means, metrics: Sequence[Metric]) -> list[str]:
    return [_csv_cell(getattr(means, metric)) for metric in metrics]


def _csv_cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _count(n: int, word: str) -> str:
    return f"{n} {word}" + ("s" if n != 1 else "")
