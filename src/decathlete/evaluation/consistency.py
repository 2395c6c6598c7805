"""Check that the parts of stored scores fit each other: damaged files must not fail where they are shown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decathlete.evaluation.cross_validation import CrossValidation
    from decathlete.evaluation.scores import ClassScores, ClassSummary, Scores

SIZES = ("truth_ml", "prediction_ml", "truth_px", "prediction_px")
"""Fields of scores with the size of a structure; those of one unit are set."""


def reject_disagreement(problems: Iterable[str]) -> None:
    """Raise an error with the first of ``problems``.

    Raises:
        ValueError: there is one.
    """
    for problem in problems:
        raise ValueError(problem)


def scores_problems(scores: Scores) -> Iterable[str]:
    """Yield what does not fit: cases or summaries that lack a class or a metric, in words."""
    if not (scores.metrics and scores.cases and scores.classes):
        yield "scores need at least one metric, one case and one class"
    names = [c.name for c in scores.classes]
    metrics = {m.name for m in scores.metrics}
    absent = {m.name for m in scores.metrics if m.absent_value is not None}
    sized: list[tuple[str, ClassScores | ClassSummary]] = [(f"class {c.name}", c) for c in scores.classes]
    sized += [(f"class {s.name} of case {c.case_id}", s) for c in scores.cases for s in c.classes]
    yield from _size_problems(sized, unit="px" if scores.is_in_pixels else "ml")
    for case in scores.cases:
        yield from _class_problems(f"case {case.case_id}", [c.name for c in case.classes], names)
        parts = {f"case {case.case_id}": case.values}
        parts |= {f"class {c.name} of case {case.case_id}": c.values for c in case.classes}
        yield from _metric_problems(parts, metrics)
    yield from _metric_problems({f"class {c.name}": c.values for c in scores.classes}, metrics)
    yield from _metric_problems({f"class {c.name}, with_absent": c.with_absent for c in scores.classes}, absent)
    yield from _metric_problems({"headline": scores.headline.values}, metrics)
    yield from _metric_problems({"headline, n_undefined": scores.headline.n_undefined}, metrics)
    yield from _metric_problems({"headline, with_absent": scores.headline.with_absent}, absent)


def cross_validation_problems(scores: CrossValidation) -> Iterable[str]:
    """Yield what does not fit: folds that lack a class, a metric or a case, in words."""
    names = [c.name for c in scores.classes]
    metrics = {m.name for m in scores.pooled.metrics}
    yield from _class_problems("pooled", [c.name for c in scores.pooled.classes], names)
    for fold in scores.folds:
        yield from _class_problems(f"fold {fold.fold}", [c.name for c in fold.classes], names)
        yield from _metric_problems({f"fold {fold.fold}": fold.overall.values}, metrics)
        yield from _metric_problems({f"fold {fold.fold}, class {c.name}": c.values for c in fold.classes}, metrics)
    yield from _metric_problems({"overall": scores.overall.values}, metrics)
    yield from _metric_problems({f"class {c.name}": c.values for c in scores.classes}, metrics)
    in_folds = sorted(case for fold in scores.folds for case in fold.cases)
    if in_folds != sorted(case.case_id for case in scores.pooled.cases):
        yield "the cases of the folds are not the pooled cases"


def _class_problems(part: str, found: Sequence[str], names: Sequence[str]) -> Iterable[str]:
    if list(found) != list(names):
        yield f"{part} has the classes {', '.join(found) or 'none'}; the summary has {', '.join(names) or 'none'}"


def _size_problems(sized: Iterable[tuple[str, ClassScores | ClassSummary]], *, unit: str) -> Iterable[str]:
    """Yield the structures that do not have their sizes in ``unit``, and in no other one."""
    for part, scores in sized:
        found = {name for name in SIZES if getattr(scores, name) is not None}
        if found != {f"truth_{unit}", f"prediction_{unit}"}:
            yield f"{part} needs truth_{unit} and prediction_{unit}, and has {', '.join(sorted(found)) or 'none'}"


def _metric_problems(parts: Mapping[str, Mapping[str, object]], metrics: Collection[str]) -> Iterable[str]:
    for part, values in parts.items():
        if missing := sorted(set(metrics) - set(values)):
            yield f"{part} lacks {', '.join(missing)}"
