"""Predict and score the held-out cases of a selected model: each by the networks of the fold that holds it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from decathlete.core.choices import Grid
from decathlete.core.locks import locked_folder
from decathlete.core.parallel import Workers
from decathlete.core.progress import CaseProgress
from decathlete.dataset.spec import Case
from decathlete.errors import ModelError, OptionError
from decathlete.evaluation.metrics import Metric
from decathlete.evaluation.scores import Scores
from decathlete.inference.batching.case_predictor import CasePredictor, make_case_predictor
from decathlete.inference.options import PredictOptions
from decathlete.inference.output.output_kind import OutputKind
from decathlete.inference.predict_files import PredictedFile, predict_files
from decathlete.io.format_settings import format_settings
from decathlete.workflows.held_out import load_cases, score_held_out
from decathlete.workflows.scores_reuse import load_reusable_scores, make_scores_origin
from decathlete.workflows.selection.record import SELECTION, Selection

VALIDATION = "validation"
MODEL = "model"


def find_selection_folder(model: Path) -> Path | None:
    """Return the folder of a selection if ``model`` is that folder or the model folder in it."""
    return next((folder for folder in (model, model.parent) if (folder / SELECTION).is_file()), None)


def validate_selection(
    folder: Path,
    *,
    dataset_root: Path | None,
    options: PredictOptions,
    workers: Workers,
    metrics: Sequence[Metric],
    grid: Grid,
    overwrite: bool,
    progress: CaseProgress | None,
) -> Scores:
    """Predict the held-out cases to ``validation/`` and write ``scores.json`` and ``scores.csv``.

    Cases of folds without a network in the model are left out: the other networks were trained on them. Existing
    predictions and scores are reused as :func:`decathlete.validate` does.

    Args:
        folder: folder of the selection. The others: as for :func:`decathlete.validate`.

    Raises:
        OptionError: ``grid`` is ``prepared``: the plans of a model have different prepared grids.
        DatasetError: the raw dataset is missing or lacks held-out cases.
        OutputError: other scores or predictions exist, and ``overwrite`` is not set.
    """
    if grid != "original":
        raise OptionError(
            "a selected model is scored on the original grid only",
            remedy="leave out --grid, or validate one of its runs",
        )
    with locked_folder(folder):
        selection = Selection.load(folder / SELECTION, error=ModelError)
        cases = load_fold_cases(selection, dataset_root)
        predictors = {fold: make_case_predictor(folder / MODEL, options, workers, fold=fold) for fold in cases}
        first = next(iter(predictors.values())).facts
        every_case = [case for held_out in cases.values() for case in held_out]
        origin = make_scores_origin(first.settings, every_case, first.labels)
        existing = load_reusable_scores(folder, origin, metrics=metrics, overwrite=overwrite)
        predictions = _predict(folder, selection, cases, predictors, overwrite=overwrite, progress=progress)
        if existing is not None and all(prediction.kept for prediction in predictions.values()):
            existing.save_csv(folder / "scores.csv")  # it may have been removed or changed
            return existing
        paths = {case_id: prediction.path for case_id, prediction in predictions.items()}
        scores = score_held_out(
            every_case,
            paths,
            first.labels,
            metrics=metrics,
            spacing=selection.spacing,
            formats=format_settings(selection.image_formats),
            workers=workers,
        ).revised(origin=origin)
        scores.save_files(folder)
        return scores


def load_fold_cases(selection: Selection, dataset_root: Path | None) -> dict[int, list[Case]]:
    """Load the held-out cases of each fold that the model has networks of.

    Raises:
        DatasetError: the raw dataset is missing or lacks held-out cases.
    """
    root = dataset_root or Path(selection.dataset_root)
    folds = selection.selected_candidate.folds
    load = partial(
        load_cases,
        root=root,
        spacing=selection.spacing,
        formats=format_settings(selection.image_formats),
        annotated=selection.annotated,
    )
    return {fold: load(selection.held_out[fold]) for fold in folds}


def _predict(
    folder: Path,
    selection: Selection,
    cases: Mapping[int, Sequence[Case]],
    predictors: Mapping[int, CasePredictor],
    *,
    overwrite: bool,
    progress: CaseProgress | None,
) -> dict[str, PredictedFile]:
    predictions: dict[str, PredictedFile] = {}
    for fold, held_out in cases.items():
        predicted = predict_files(
            predictors[fold],
            {case.id: case.images for case in held_out},
            folder / VALIDATION,
            spacing=selection.spacing,
            kind=OutputKind(image_formats=selection.image_formats),
            overwrite=overwrite,
            progress=progress,
        )
        predictions |= {file.case_id: file for file in predicted}
    return predictions
