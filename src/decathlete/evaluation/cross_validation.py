"""The scores of several folds together, in two ways: over folds and over cases.

*Over folds*: mean and standard deviation of the folds' own means, every fold with the same weight; the spread shows how
much a model depends on its training cases. *Pooled*: all held-out cases as one evaluation, each case counted once; its
spread is that of patients. Folds of different sizes make the two means differ a little.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import model_validator

from decathlete.core.files import write_text
from decathlete.core.schema import Schema
from decathlete.errors import DatasetError, printable
from decathlete.evaluation.consistency import cross_validation_problems, reject_disagreement
from decathlete.evaluation.metric_info import MetricInfo, metric_differences
from decathlete.evaluation.origin import ScoresOrigin
from decathlete.evaluation.scores import CaseScores, MetricStatistics, Scores, Values
from decathlete.evaluation.scores_v1 import upgrade_cross_validation

OVERALL = "all classes"
"""Name of the mean over a case's classes in tables."""

REMEDY = "train the folds that differ again, with --overwrite"


class ClassMeans(Schema):
    """Means of one class over the cases of one fold; ``None`` where no case has a value."""

    name: str
    values: Values


class Spread(Schema):
    """Mean and standard deviation (of the population) of one class, over folds or over cases."""

    name: str
    values: dict[str, MetricStatistics | None]

    @classmethod
    def of(cls, name: str, items: Sequence[ClassMeans | CaseScores]) -> Self:
        """Compute the spread over ``items``; each counts once in every metric that it has."""
        return cls(name=name, values={m: MetricStatistics.of(i.values[m] for i in items) for m in items[0].values})

    @property
    def dice(self) -> MetricStatistics | None:
        """Statistics of the Dice; ``None`` also if it was not computed."""
        return self.values.get("dice")

    def mean(self, metric: str) -> float | None:
        """Return the mean of a metric; ``None`` if it has no value."""
        found = self.values.get(metric)
        return None if found is None else found.mean

    def cell(self, metric: MetricInfo, *, of: int) -> str:
        """``0.873 ± 0.012``; with the number of values, where fewer than ``of`` have one."""
        found = self.values[metric.name]
        if found is None:
            return "undefined"
        few = f" (of {found.n})" if found.n < of else ""
        return f"{metric.format(found.mean)} ± {metric.format(found.std)}{few}"


class FoldScores(Schema):
    """The part of one fold.

    Attributes:
        cases: ids of its held-out cases; their scores are among the pooled ones.
        overall: means over these cases of the mean over a case's classes.
        origin: of its scores.
    """

    fold: int
    cases: tuple[str, ...]
    overall: ClassMeans
    classes: tuple[ClassMeans, ...]
    origin: ScoresOrigin | None

    @classmethod
    def of(cls, fold: int, scores: Scores) -> Self:
        """Make the record of a fold from its ``scores.json``."""
        names = [m.name for m in scores.metrics]
        return cls(
            fold=fold,
            cases=tuple(c.case_id for c in scores.cases),
            overall=ClassMeans(name=OVERALL, values=scores.headline.values),
            classes=tuple(ClassMeans(name=c.name, values={m: c.mean(m) for m in names}) for c in scores.classes),
            origin=scores.origin,
        )


class CrossValidation(Schema):
    """A cross-validation, as ``cross_validation.json`` holds it. Version 1 is read too.

    Attributes:
        n_folds: of the split.
        folds: those that are scored, in order.
        failed: fold -> why it has no scores.
        overall, classes: over folds.
        pooled: all held-out cases of these folds as one evaluation.
    """

    version: Literal[2] = 2
    dataset: str
    dims: int
    n_folds: int
    folds: tuple[FoldScores, ...]
    failed: dict[int, str] = {}
    overall: Spread
    classes: tuple[Spread, ...]
    pooled: Scores

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, data: Any) -> Any:
        return upgrade_cross_validation(data)

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        reject_disagreement(cross_validation_problems(self))
        return self

    @classmethod
    def of(cls, scores: Mapping[int, Scores], **facts: Any) -> Self:
        """Make a cross-validation from the scores of each fold (at least one).

        Args:
            facts: ``dataset``, ``dims``, ``n_folds``, ``failed``.

        Raises:
            DatasetError: the folds do not belong together: a case is held out twice, or classes or metrics differ.
        """
        _check_folds_match(scores)
        folds = tuple(FoldScores.of(fold, scores[fold]) for fold in sorted(scores))
        every_case = [case for fold in scores.values() for case in fold.cases]
        first = next(iter(scores.values()))
        by_class = zip(*(fold.classes for fold in folds), strict=True)
        return cls(
            folds=folds,
            overall=Spread.of(OVERALL, [fold.overall for fold in folds]),
            classes=tuple(Spread.of(means[0].name, means) for means in by_class),
            pooled=Scores.of(every_case, first.metrics, unit=first.unit),
            **facts,
        )

    @property
    def metrics(self) -> tuple[MetricInfo, ...]:
        """The metrics of all folds, in the order of columns."""
        return self.pooled.metrics

    @property
    def over_folds(self) -> tuple[Spread, ...]:
        """Each class, then the mean over classes, over folds."""
        return (*self.classes, self.overall)

    @property
    def over_cases(self) -> tuple[Spread, ...]:
        """Each class, then the mean over classes, over all cases."""
        classes = [Spread(name=c.name, values=c.values) for c in self.pooled.classes]
        return (*classes, Spread.of(OVERALL, self.pooled.cases))

    def headline_line(self) -> str:
        """Return e.g. ``mean Dice 0.873 ± 0.012 · NSD ... · HD95 ... · 5 folds · 41 cases, pooled Dice 0.871``."""
        figures = " · ".join(
            f"{m.title} {self.overall.cell(m, of=len(self.folds))} {m.unit}".rstrip()
            for m in self.pooled.headline_metrics
        )
        folds = _count(len(self.folds), "fold")
        if self.failed:
            folds += f" of {len(self.folds) + len(self.failed)}"
        main, pooled = self.pooled.main_metric, self.pooled.headline
        value = pooled.values[main.name]
        together = "" if value is None else f", pooled {main.title} {main.format(value)}"
        return f"mean {figures} · {folds} · {_count(pooled.n_cases, 'case')}{together}"

    def table(self) -> str:
        """Return a table for a terminal: one line per class, over folds and over all cases."""
        n_folds, n_cases = len(self.folds), self.pooled.headline.n_cases
        metrics = self.pooled.headline_metrics
        over_folds = _lines(f"mean ± std over {_count(n_folds, 'fold')}", self.over_folds, metrics, n_folds)
        pooled = _lines(f"mean ± std over {_count(n_cases, 'case')}", self.over_cases, metrics, n_cases)
        return "\n".join([*over_folds, "", *pooled])

    def save_csv(self, path: Path) -> None:
        """Write one row per class for each fold, for mean and std over folds, and for mean and std over all cases."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = [m.name for m in self.metrics]
        writer.writerow(["class", "of", *names])
        for number, spread in enumerate(self.over_folds):
            for fold in self.folds:
                means = (*fold.classes, fold.overall)[number]
                writer.writerow([spread.name, f"fold {fold.fold}", *(_csv_cell(means.values[m]) for m in names)])
            for words, found in (("folds", spread), ("cases", self.over_cases[number])):
                for statistic in ("mean", "std"):
                    figures = [getattr(found.values[m], statistic, None) for m in names]
                    writer.writerow([spread.name, f"{statistic} over {words}", *map(_csv_cell, figures)])
        write_text(path, printable(text.getvalue()))


def _check_folds_match(scores: Mapping[int, Scores]) -> None:
    first = next(iter(scores.values()))
    held_out: dict[str, int] = {}
    for fold, found in scores.items():
        if [c.name for c in found.classes] != [c.name for c in first.classes]:
            raise DatasetError(f"fold {fold} has scores of other classes than the other folds", remedy=REMEDY)
        if differences := metric_differences(found.metrics, first.metrics):
            raise DatasetError(
                f"fold {fold} has scores of other metrics than the other folds: {', '.join(differences)}",
                remedy="score it again with `decathlete validate --overwrite` and the metrics of the others",
            )
        for case in found.cases:
            if (other := held_out.setdefault(case.case_id, fold)) != fold:
                raise DatasetError(
                    f"{case.case_id} is held out in folds {other} and {fold}: they come from different splits",
                    remedy=REMEDY,
                )


def _lines(title: str, spreads: Sequence[Spread], metrics: Sequence[MetricInfo], n: int) -> list[str]:
    rows = [[title, *(metric.heading for metric in metrics)]]
    rows += [[spread.name, *(spread.cell(metric, of=n) for metric in metrics)] for spread in spreads]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _csv_cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _count(n: int, word: str) -> str:
    return f"{n} {word}" + ("s" if n != 1 else "")
