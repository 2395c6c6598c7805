"""Write scores into a folder; other scores there are replaced only on request."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from decathlete.errors import DecathleteError, OutputError
from decathlete.evaluation.metric_info import MetricInfo, metric_differences
from decathlete.evaluation.metrics import Metric
from decathlete.evaluation.scores import Scores

SCORES = "scores.json"


def save_scores(scores: Scores, folder: Path, *, overwrite: bool = False) -> None:
    """Write ``scores.json`` and ``scores.csv`` into ``folder``.

    Raises:
        OutputError: it holds other scores, and ``overwrite`` is not given.
    """
    path = folder / SCORES
    if path.exists() and not overwrite and not _equal(path, scores):
        raise _other_scores(path)
    scores.save_files(folder)


def check_scores(folder: Path, *, case_ids: Collection[str], metrics: Sequence[Metric]) -> None:
    """Check before any case is scored that scores in ``folder``, if there are any, may be the same.

    Raises:
        OutputError: they are of other cases or metrics, or damaged.
    """
    path = folder / SCORES
    if not path.exists():
        return
    try:
        existing = Scores.load(path)
    except DecathleteError:
        raise _other_scores(path) from None
    same_metrics = not metric_differences(existing.metrics, [MetricInfo.of(m) for m in metrics])
    if not same_metrics or {c.case_id for c in existing.cases} != set(case_ids):
        raise _other_scores(path)


def _other_scores(path: Path) -> OutputError:
    return OutputError(
        "contains other scores",
        where=path,
        remedy="choose another folder, or use --overwrite to replace them",
        code="E-OUTPUT-EXISTS",
    )


def _equal(path: Path, scores: Scores) -> bool:
    try:
        return Scores.load(path) == scores
    except DecathleteError:
        return False
