"""Reuses scores beside a model if model, settings and cases are the same."""

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
from decathlete.inference.output.provenance import Settings, inputs_digest


def make_scores_origin(settings: Settings, cases: Sequence[Case], labels: LabelSet) -> ScoresOrigin:
    """Describe the models, settings and cases of scores.

    Raises:
        DatasetError: a file cannot be read.
    """
    prediction = settings.model_dump(mode="json")
    models = tuple(model.pop("digest") for model in prediction["models"])
    try:
        truths = {case.id: file_digest(case.label) for case in cases if case.label is not None}
        images = {case.id: inputs_digest(case.images) for case in cases}
    except OSError as problem:
        raise DatasetError(
            f"cannot be read ({problem.strerror})",
            where=problem.filename,
            remedy="restore this file; scores need every held-out case",
        ) from None
    return ScoresOrigin(
        models=models,
        prediction=prediction,
        truths=value_digest([labels.model_dump(mode="json"), truths]),
        images=value_digest(images),
    )


def load_reusable_scores(
    folder: Path, origin: ScoresOrigin, *, tolerance_mm: float, overwrite: bool, grid: Grid = "original"
) -> Scores | None:
    """Load the scores in ``folder`` if they have the same origin, tolerance and grid, else return ``None``.

    Args:
        folder: folder of the run.
        origin: required models, settings and cases.
        tolerance_mm: required tolerance of the surface Dice, mm.
        overwrite: return ``None`` if there are other scores.
        grid: required grid.

    Raises:
        OutputError: there are other scores, and ``overwrite`` is not set.
    """
    path = folder / f"{SCORES_STEMS[grid]}.json"
    if not path.exists():
        return None
    try:
        scores = Scores.load(path)
    except DecathleteError:
        differences = ["they are damaged"]
    else:
        differences = _find_differences(scores, origin, tolerance_mm)
        if scores.grid != grid:
            differences.append(f"they are on the {scores.grid} grid")
        if not differences:
            return scores
    if overwrite:
        return None
    raise OutputError(
        f"contains other scores ({'; '.join(differences)})",
        where=path,
        remedy="use the same settings to see them, or replace them with `decathlete validate --overwrite`",
    )


def _find_differences(scores: Scores, origin: ScoresOrigin, tolerance_mm: float) -> list[str]:
    if scores.origin is None:
        return ["their origin is unknown"]
    tolerance = [f"tolerance {scores.tolerance_mm:g} mm"] if scores.tolerance_mm != tolerance_mm else []
    return scores.origin.differences(origin) + tolerance
