"""Reuses scores in a run folder if model, settings, cases and metrics are the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from decathlete.core.choices import Grid
from decathlete.core.files import value_digest
from decathlete.core.labels import LabelSet
from decathlete.core.sliding_window import SlidingWindow
from decathlete.dataset.spec import Case
from decathlete.errors import DatasetError, DecathleteError, OutputError
from decathlete.evaluation.metric_info import MetricInfo, metric_differences
from decathlete.evaluation.metrics import Metric, MetricChoice, make_metrics
from decathlete.evaluation.origin import ScoresOrigin
from decathlete.evaluation.scores import SCORES_STEMS, Scores
from decathlete.inference.output.provenance import RecordedSettings, image_digest, inputs_digest


def make_scores_origin(settings: RecordedSettings, cases: Sequence[Case], labels: LabelSet) -> ScoresOrigin:
    """Describe the models, settings and cases of scores.

    Raises:
        DatasetError: a file cannot be read.
    """
    prediction = settings.model_dump(mode="json")
    for later in ("spacing", "output"):
        if prediction[later] is None:
            del prediction[later]  # as older releases recorded it
    models = tuple(model.pop("digest") for model in prediction["models"])
    return ScoresOrigin(
        models=models, prediction=prediction, truths=digest_of_truths(cases, labels), images=digest_of_images(cases)
    )


def digest_of_truths(cases: Sequence[Case], labels: LabelSet) -> str:
    """Return the digest of the label maps of cases, and of the classes and regions that are scored in them.

    Raises:
        DatasetError: a file cannot be read.
    """
    with _translate_read_error():
        truths = {case.id: _digest_of_label(case) for case in cases if case.label is not None}
    structures = [case.structures.names for case in cases if case.structures is not None]
    return value_digest([labels.model_dump(mode="json"), truths, *structures])


def _digest_of_label(case: Case) -> object:
    """Return the digest of the only file of a label, or those of all its DICOM objects."""
    digests = [image_digest(path) for path in case.label_files]
    return digests[0] if len(digests) == 1 else digests


def digest_of_images(cases: Sequence[Case]) -> str:
    """Return the digest of the images of cases.

    Raises:
        DatasetError: a file cannot be read.
    """
    with _translate_read_error():
        return value_digest({case.id: inputs_digest(case.images) for case in cases})


@contextmanager
def _translate_read_error() -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise DatasetError(
            f"cannot be read ({problem.strerror})",
            where=problem.filename,
            remedy="restore this file; scores need every held-out case",
        ) from None


def load_reusable_scores(
    folder: Path, origin: ScoresOrigin, *, metrics: Sequence[Metric], overwrite: bool, grid: Grid = "original"
) -> Scores | None:
    """Load the scores in ``folder`` if they have the same origin, metrics and grid, else return ``None``.

    Args:
        folder: folder of the run.
        origin: required models, settings and cases.
        metrics: required metrics.
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
        differences = _find_differences(scores, origin, metrics)
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
        code="E-OUTPUT-EXISTS",
    )


def different_scores(run: Path, *, metrics: Sequence[MetricChoice] | None, window: SlidingWindow) -> list[str]:
    """Return why the scores of a run are not those of these metrics and settings, as far as no image is read.

    Args:
        metrics: see :func:`decathlete.validate`.
        window: how a network is moved over an image.
    """
    try:
        scores = Scores.load(run / f"{SCORES_STEMS['original']}.json")
    except DecathleteError:  # absent, or damaged: they are made again or rejected
        return []
    others = metric_differences(scores.metrics, [MetricInfo.of(metric) for metric in make_metrics(metrics)])
    found = [f"other metrics: {', '.join(others)}"] if others else []
    recorded = {} if scores.origin is None else scores.origin.prediction
    settings = RecordedSettings.of((), window).model_dump(mode="json")
    for name in ("tta", "overlap", "blend"):
        if name in recorded and recorded[name] != settings[name]:
            found.append(f"{name}: {recorded[name]} -> {settings[name]}")
    return found


def _find_differences(scores: Scores, origin: ScoresOrigin, metrics: Sequence[Metric]) -> list[str]:
    if scores.origin is None:
        return ["their origin is unknown"]
    others = metric_differences(scores.metrics, [MetricInfo.of(m) for m in metrics])
    return scores.origin.differences(origin) + ([f"other metrics: {', '.join(others)}"] if others else [])
