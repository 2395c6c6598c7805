"""The scores in a run folder: kept while they are of the same model, settings, cases and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decathlete.core.choices import Grid
from decathlete.core.files import file_digest, value_digest
from decathlete.core.labels import LabelSet
from decathlete.dataset.spec import Case
from decathlete.errors import DatasetError, DecathleteError, OutputError
from decathlete.evaluation.metrics import Metric
from decathlete.evaluation.origin import ScoresOrigin
from decathlete.evaluation.scores import SCORES_STEMS, MetricInfo, Scores, metric_differences
from decathlete.inference.output.provenance import RecordedSettings, inputs_digest


def origin_of(settings: RecordedSettings, cases: Sequence[Case], labels: LabelSet) -> ScoresOrigin:
    """Describe the origin of the scores of ``cases`` that are predicted with ``settings``.

    Raises:
        DatasetError: a file cannot be read.
    """
    described = settings.model_dump(mode="json")
    models = tuple(model.pop("digest") for model in described["models"])
    try:
        truths = {case.id: file_digest(case.label) for case in cases if case.label is not None}
        images = {case.id: inputs_digest(case.images) for case in cases}
    except OSError as problem:
        raise DatasetError(
            f"cannot be read ({problem.strerror})",
            where=problem.filename,
            remedy="restore this held-out case's file; the scores need every case",
        ) from None
    return ScoresOrigin(
        models=models,
        prediction=described,
        truths=value_digest([labels.model_dump(mode="json"), truths]),
        images=value_digest(images),
    )


def kept_scores(
    folder: Path, origin: ScoresOrigin, *, metrics: Sequence[Metric], overwrite: bool, grid: Grid = "original"
) -> Scores | None:
    """Return the scores on ``grid`` in ``folder``, if origin and metrics are the same; else ``None``.

    Raises:
        OutputError: there are other scores, and ``overwrite`` is not given.
    """
    path = folder / f"{SCORES_STEMS[grid]}.json"
    if not path.exists():
        return None
    try:
        scores = Scores.load(path)
    except DecathleteError:
        others = ["they are damaged"]
    else:
        others = _differences(scores, origin, metrics)
        if scores.grid != grid:
            others.append(f"computed on the {scores.grid} grid")
        if not others:
            return scores
    if overwrite:
        return None
    raise OutputError(
        f"holds other scores ({'; '.join(others)})",
        where=path,
        remedy="use the same options to see them, or replace them with `decathlete validate --overwrite`",
        code="E-OUTPUT-EXISTS",
    )


def _differences(scores: Scores, origin: ScoresOrigin, metrics: Sequence[Metric]) -> list[str]:
    if scores.origin is None:
        return ["of unknown origin"]
    found = metric_differences(scores.metrics, [MetricInfo.of(m) for m in metrics])
    return scores.origin.differences(origin) + ([f"other metrics: {', '.join(found)}"] if found else [])
