"""Score a trained model on the cases its fold held out: from the raw images, on their original grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decathlete.core.choices import Grid
from decathlete.core.progress import CaseProgress
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case
from decathlete.errors import DatasetError, ModelError, OptionError
from decathlete.evaluation.evaluate import evaluate_pairs
from decathlete.evaluation.metrics import Metric, MetricChoice, make_metrics
from decathlete.evaluation.origin import ScoresOrigin
from decathlete.evaluation.scores import Scores
from decathlete.inference.options import PredictOptions
from decathlete.inference.predict import Predictor
from decathlete.inference.predict_files import predict_files
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.kept_scores import kept_scores, origin_of
from decathlete.workflows.prepared_grid import score_on_prepared_grid


def run_of(model: Path) -> Path | None:
    """The run folder that ``model`` is or lies in, if it is part of a run."""
    return next((folder for folder in (model, model.parent) if (folder / "run.json").is_file()), None)


def run_folder_of(model: Path) -> Path:
    """The run folder that ``--model`` names, by itself or through its ``model`` folder.

    Raises:
        ModelError: it is not part of a run, so nothing tells which cases were held out.
    """
    found = run_of(model)
    if found is not None:
        return found
    raise ModelError(
        "holds no run.json, so nothing tells which cases were held out",
        where=model,
        remedy="name the folder that `decathlete train` made (results/<dataset>/<2d|3d>/fold_<k>)",
        code="E-MODEL-NOT-FOUND",
    )


def validate(
    model: Path,
    *,
    dataset_root: Path | None = None,
    options: PredictOptions = PredictOptions(),
    workers: int = 2,
    metrics: Sequence[MetricChoice] | None = None,
    tolerance_mm: float | None = None,
    grid: Grid = "original",
    overwrite: bool = False,
    progress: CaseProgress | None = None,
) -> Scores:
    """Predict the held-out cases into ``validation/`` and write ``scores.json`` and ``scores.csv`` beside the model.

    On the ``prepared`` grid predictions stay in memory, and the files are ``scores_prepared.json`` and ``.csv``. Scores
    that are there already, of the same model, settings and cases, are kept.

    Args:
        dataset_root: where the raw dataset lies now, if it moved since training.
        metrics, tolerance_mm: see :func:`~decathlete.evaluation.metrics.make_metrics`.
        grid: ``original``: the files' own. ``prepared``: the one that the network sees, cropped and resampled; such
            scores tell what resampling costs, and are not to be quoted.
        overwrite: replace predictions and scores of other models, settings or cases.

    Raises:
        ModelError: ``model`` is not a run folder, or has no held-out cases.
        DatasetError: the raw dataset is gone or lacks held-out cases.
        OptionError: unknown metrics, or settings that they do not have or allow.
        OutputError: other scores or predictions are in the way (and not ``overwrite``); before any work is done.
    """
    used = make_metrics(metrics, tolerance_mm=tolerance_mm)
    run = run_folder_of(model)
    record = RunRecord.load(run / "run.json", error=ModelError)
    cases = held_out_cases(run, record, dataset_root)
    predictor = Predictor.load(run / "model", options=options)
    labels = predictor.labels  # not the manifest's: the regions that were learned may be the user's
    origin = origin_of(predictor.settings, cases, labels)
    kept = kept_scores(run, origin, metrics=used, overwrite=overwrite, grid=grid)
    if grid == "prepared":
        if kept is not None:
            return kept
        return _scored_as_prepared(run, predictor, cases, origin, metrics=used, progress=progress)
    folder = run / "validation"
    done = predict_files(predictor, {c.id: c.images for c in cases}, folder, overwrite=overwrite, progress=progress)
    if kept is not None and all(prediction.kept for prediction in done):
        kept.save_csv(run / "scores.csv")  # should someone have removed or changed it
        return kept
    written = {p.case_id: p.path for p in done}
    pairs = {c.id: (written[c.id], c.label) for c in cases if c.label is not None}
    found = evaluate_pairs(pairs, labels, metrics=used, workers=workers)
    scores = found.revised(origin=origin)
    scores.save_files(run)
    return scores


def _scored_as_prepared(
    run: Path,
    predictor: Predictor,
    cases: Sequence[Case],
    origin: ScoresOrigin,
    *,
    metrics: Sequence[Metric],
    progress: CaseProgress | None,
) -> Scores:
    found = score_on_prepared_grid(predictor, cases, metrics=metrics, progress=progress)
    scores = found.revised(origin=origin)
    scores.save_files(run)
    return scores


def held_out_cases(run: Path, record: RunRecord, dataset_root: Path | None) -> list[Case]:
    """The cases that a run's fold held out.

    Args:
        dataset_root: where the raw dataset lies now, if it moved since training.

    Raises:
        OptionError: none was. DatasetError: the dataset is gone, or lacks some of them.
    """
    if not record.val:
        raise OptionError("this model was trained on every case: none is held out", where=run, remedy="train a fold")
    root = dataset_root or Path(record.dataset_root or "")
    if not (root / "dataset.json").is_file():
        raise DatasetError(
            "the raw dataset is not where it was in training",
            where=root,
            remedy="say where it lies with --dataset FOLDER",
            code="E-DATASET-NOT-FOUND",
        )
    known = {c.id: c for c in read_dataset(root).cases}
    missing = [i for i in record.val if i not in known]
    if missing:
        raise DatasetError(
            f"lacks held-out cases of this model: {', '.join(missing)}", where=root, remedy="name the right dataset"
        )
    return [known[i] for i in record.val]
