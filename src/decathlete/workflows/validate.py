"""Predicts and scores the held-out cases of a model, from the raw images and on their original grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decathlete.core.choices import Grid
from decathlete.core.locks import locked_folder
from decathlete.core.parallel import Workers, require_shared
from decathlete.core.progress import CaseProgress
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case
from decathlete.errors import DatasetError, ModelError, OptionError
from decathlete.evaluation.evaluate import evaluate_pairs
from decathlete.evaluation.metrics import Metric, MetricChoice, make_metrics
from decathlete.evaluation.origin import ScoresOrigin
from decathlete.evaluation.scores import Scores
from decathlete.inference.batching.case_predictor import make_case_predictor
from decathlete.inference.options import PredictOptions
from decathlete.inference.predict_files import predict_files
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.prepared_grid import score_on_prepared_grid
from decathlete.workflows.scores_reuse import load_reusable_scores, make_scores_origin


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
        remedy="use the folder that `decathlete train` made (results/<dataset>/<2d|3d>/fold_<k>)",
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
        model: folder of a run, or the model folder in it.
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
        overwrite=overwrite,
        progress=progress,
    )
    if existing is not None and all(prediction.kept for prediction in predictions):
        existing.save_csv(run / "scores.csv")  # it may have been removed or changed
        return existing
    paths = {p.case_id: p.path for p in predictions}
    pairs = {c.id: (paths[c.id], c.label) for c in cases if c.label is not None}
    unannotated = {c.id: c.unannotated for c in cases if c.unannotated}
    scores = evaluate_pairs(
        pairs, labels, metrics=metrics, spacing=record.spacing, unannotated=unannotated, workers=workers
    )
    return _save(scores, origin, run)


def _save(scores: Scores, origin: ScoresOrigin, run: Path) -> Scores:
    scores = scores.revised(origin=origin)
    scores.save_files(run)
    return scores


def load_held_out_cases(run: Path, record: RunRecord, dataset_root: Path | None) -> list[Case]:
    """Load the held-out cases of a run.

    Args:
        run: folder of the run.
        record: record of the run.
        dataset_root: folder of the raw dataset, if it has moved since training.

    Raises:
        OptionError: the run has no held-out cases.
        DatasetError: the raw dataset is missing or lacks held-out cases.
    """
    if not record.val:
        raise OptionError(
            "this model was trained on every case: none is held out", where=run, remedy="train one fold (--fold 0)"
        )
    root = dataset_root or Path(record.dataset_root or "")
    if not (root / "dataset.json").is_file():
        raise DatasetError(
            "the raw dataset is not where it was in training",
            where=root,
            remedy="use --dataset FOLDER with its new path",
            code="E-DATASET-NOT-FOUND",
        )
    spec = read_dataset(root, spacing=record.spacing, annotated=record.annotated or None)
    by_id = {c.id: c for c in spec.cases}
    missing = [i for i in record.val if i not in by_id]
    if missing:
        raise DatasetError(
            f"lacks held-out cases of this model: {', '.join(missing)}",
            where=root,
            remedy="use the dataset of its training",
        )
    return [by_id[i] for i in record.val]
