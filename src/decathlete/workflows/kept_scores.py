"""The scores beside a model: kept while they are of the same model, settings and cases, else refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decathlete.core.choices import Grid
from decathlete.core.files import file_digest, value_digest
from decathlete.core.labels import LabelSet
from decathlete.dataset.spec import Case
from decathlete.errors import DatasetError, DecathleteError, OutputError
from decathlete.evaluation.origin import ScoresOrigin
from decathlete.evaluation.scores import SCORES_STEMS, Scores
from decathlete.inference.output.provenance import RecordedSettings, inputs_digest


def origin_of(settings: RecordedSettings, cases: Sequence[Case], labels: LabelSet) -> ScoresOrigin:
    """What the scores of ``cases``, predicted with ``settings``, are of.

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
    folder: Path, origin: ScoresOrigin, *, tolerance_mm: float, overwrite: bool, grid: Grid = "original"
) -> Scores | None:
    """The scores on ``grid`` in ``folder``, if they are of the same; ``None`` where there are none to keep.

    Raises:
        OutputError: there are others, and ``overwrite`` is not given.
    """
    path = folder / f"{SCORES_STEMS[grid]}.json"
    if not path.exists():
        return None
    try:
        scores = Scores.load(path)
    except DecathleteError:
        others = ["they are damaged"]
    else:
        others = _differences(scores, origin, tolerance_mm)
        if scores.grid != grid:
            others.append(f"taken on the {scores.grid} grid")
        if not others:
            return scores
    if overwrite:
        return None
    raise OutputError(
        f"holds other scores ({'; '.join(others)})",
        where=path,
        remedy="ask for the same again to see them, or replace them with `decathlete validate --overwrite`",
    )


def _differences(scores: Scores, origin: ScoresOrigin, tolerance_mm: float) -> list[str]:
    if scores.origin is None:
        return ["they do not say what they are of"]
    tolerance = [f"tolerance {scores.tolerance_mm:g} mm"] if scores.tolerance_mm != tolerance_mm else []
    return scores.origin.differences(origin) + tolerance
