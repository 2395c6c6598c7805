"""Predicts and scores the held-out cases of a model, from the raw images and on their original grids."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from decathlete.core.choices import Grid
from decathlete.core.locks import locked_folder
from decathlete.core.parallel import Workers, require_shared
from decathlete.core.progress import CaseProgress
from decathlete.errors import ModelError
from decathlete.evaluation.metric_info import UNLEARNED_DICE
from decathlete.evaluation.metrics import Metric, MetricChoice, make_metrics
from decathlete.evaluation.origin import ScoresOrigin
from decathlete.evaluation.scores import Scores
from decathlete.inference.batching.case_predictor import make_case_predictor
from decathlete.inference.options import PredictOptions
from decathlete.inference.output.output_kind import OutputKind
from decathlete.inference.predict_files import predict_files
from decathlete.io.format_settings import format_settings
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.held_out import load_held_out_cases, score_held_out
from decathlete.workflows.prepared_grid import score_on_prepared_grid
from decathlete.workflows.scores_reuse import load_reusable_scores, make_scores_origin
from decathlete.workflows.selection.validation import find_selection_folder, validate_selection

log = logging.getLogger(__name__)


def find_run_folder(model: Path) -> Path | None:
    """Return the folder of the run if ``model`` is that folder or the model folder in it."""
    return next((folder for folder in (model, model.parent) if (folder / "run.json").is_file()), None)


def require_run_folder(model: Path) -> Path:
    """Return the folder of the run if ``model`` is that folder or the model folder in it.

    Raises:
        ModelError: ``model`` is not part of a run.
    """
    folder = find_run_folder(model)
    if folder is not None:
        return folder
    raise ModelError(
        "contains no run.json, so that the held-out cases are unknown",
        where=model,
        remedy="use the folder that `decathlete train` made (results/<dataset>/<configuration>/fold_<k>)",
        code="E-MODEL-NOT-FOUND",
    )


def validate(
    model: Path,
    *,
    dataset_root: Path | None = None,
    options: PredictOptions = PredictOptions(),
    workers: Workers = 2,
    metrics: Sequence[MetricChoice] | None = None,
    tolerance_mm: float | None = None,
    grid: Grid = "original",
    overwrite: bool = False,
    progress: CaseProgress | None = None,
) -> Scores:
    """Predict the held-out cases to ``validation/`` and write ``scores.json`` and ``scores.csv`` beside the model.

    On the ``prepared`` grid predictions stay in memory, and the files are ``scores_prepared.json`` and ``.csv``.
    Existing scores of the same model, settings and cases are reused.

    Args:
        model: folder of a run or of a selection, or the model folder in it. Each case of a selection is predicted by
            the networks of the fold that holds it out.
        dataset_root: folder of the raw dataset, if it has moved since training.
        options: options of the prediction.
        workers: number of cases that are scored in parallel, or an executor (:func:`decathlete.connect_cluster`) that
            also predicts them.
        metrics: metrics to compute; see :func:`~decathlete.evaluation.metrics.make_metrics`.
        tolerance_mm: tolerance of the normalised surface Dice, mm; see the same.
        grid: ``original``: grid of the files. ``prepared``: cropped and resampled grid of the network; such scores show
            the loss by resampling and are not for publication.
        overwrite: replace predictions and scores of other models, settings or cases.
        progress: called after each case.

    Raises:
        ModelError: ``model`` is not part of a run.
        OptionError: the run has no held-out cases, or metrics or their settings are unknown or not allowed.
        DatasetError: the raw dataset is missing or lacks held-out cases.
        OutputError: other scores or predictions exist, and ``overwrite`` is not set; or another process works in the
            folder of the run, or it cannot be written. This is checked first.
    """
    used = make_metrics(metrics, tolerance_mm=tolerance_mm)
    selection = find_selection_folder(model)
    if selection is not None:
        return validate_selection(
            selection,
            dataset_root=dataset_root,
            options=options,
            workers=workers,
            metrics=used,
            grid=grid,
            overwrite=overwrite,
            progress=progress,
        )
    run = require_run_folder(model)
    with locked_folder(run):
        return _validate(
            run,
            dataset_root=dataset_root,
            options=options,
            workers=workers,
            metrics=used,
            grid=grid,
            overwrite=overwrite,
            progress=progress,
        )


def _validate(
    run: Path,
    *,
    dataset_root: Path | None,
    options: PredictOptions,
    workers: Workers,
    metrics: Sequence[Metric],
    grid: Grid,
    overwrite: bool,
    progress: CaseProgress | None,
) -> Scores:
    record = RunRecord.load(run / "run.json", error=ModelError)
    cases = load_held_out_cases(run, record, dataset_root)
    require_shared(workers, reads=[run, *cases[0].images])
    predictor = make_case_predictor(run / "model", options, workers)
    labels = predictor.facts.labels  # the model's, because its regions may differ from those of dataset.json
    origin = make_scores_origin(predictor.facts.settings, cases, labels)
    existing = load_reusable_scores(run, origin, metrics=metrics, overwrite=overwrite, grid=grid)
    if grid == "prepared":
        if existing is not None:
            return existing
        scores = score_on_prepared_grid(predictor, cases, metrics=metrics, progress=progress)
        return _save(scores, origin, run)
    folder = run / "validation"
    predictions = predict_files(
        predictor,
        {c.id: c.images for c in cases},
        folder,
        spacing=record.spacing,
        kind=OutputKind(image_formats=record.image_formats),
        overwrite=overwrite,
        progress=progress,
    )
    if existing is not None and all(prediction.kept for prediction in predictions):
        existing.save_csv(run / "scores.csv")  # it may have been removed or changed
        return existing
    paths = {p.case_id: p.path for p in predictions}
    scores = score_held_out(
        cases,
        paths,
        labels,
        metrics=metrics,
        spacing=record.spacing,
        formats=format_settings(record.image_formats),
        workers=workers,
    )
    return _save(scores, origin, run)


def _save(scores: Scores, origin: ScoresOrigin, run: Path) -> Scores:
    scores = scores.revised(origin=origin)
    scores.save_files(run)
    if scores.unlearned:
        log.warning(
            "not learned: %s: mean Dice below %g in the held-out cases; train longer",
            ", ".join(scores.unlearned),
            UNLEARNED_DICE,
        )
    return scores
