"""Loads held-out cases of the raw dataset, and scores their predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from decathlete.core.geometry import Triple
from decathlete.core.labels import LabelSet
from decathlete.core.parallel import Workers
from decathlete.dataset.annotated import AnnotatedClasses
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case
from decathlete.errors import DatasetError, OptionError
from decathlete.evaluation.evaluate import evaluate_pairs
from decathlete.evaluation.metrics import Metric
from decathlete.evaluation.scores import Scores
from decathlete.io.format_settings import FormatSettings
from decathlete.io.reading import Reading
from decathlete.training.reporting.records import RunRecord


def load_held_out_cases(
    run: Path, record: RunRecord, dataset_root: Path | None, *, reading: Reading | None = None
) -> list[Case]:
    """Load the held-out cases of a run.

    Args:
        run: folder of the run.
        record: record of the run.
        dataset_root: folder of the raw dataset, if it has moved since training.
        reading: how its files are read; ``None``: as in training.

    Raises:
        OptionError: the run has no held-out cases.
        DatasetError: the raw dataset is missing or lacks held-out cases.
    """
    if not record.val:
        raise OptionError(
            "this model was trained on every case: none is held out"
            if record.fold == "all"
            else f"fold {record.fold} holds out no case",
            where=run,
            remedy="train a fold that holds out cases (--fold 0)",
        )
    root = dataset_root or Path(record.dataset_root or "")
    reading = reading or record.reading
    return load_cases(record.val, root, spacing=reading.spacing, formats=reading.formats, annotated=record.annotated)


def load_cases(
    case_ids: Sequence[str],
    root: Path,
    *,
    spacing: Triple | None = None,
    formats: FormatSettings = (),
    annotated: AnnotatedClasses | None = None,
) -> list[Case]:
    """Load cases of a raw dataset by their ids.

    Args:
        spacing, formats: see :mod:`decathlete.io.images`.
        annotated: case id -> classes that were annotated in it; ``None``: as the manifest says.

    Raises:
        DatasetError: the raw dataset is missing or lacks held-out cases.
    """
    if not (root / "dataset.json").is_file():
        raise DatasetError(
            "the raw dataset is not at the path that it had in training",
            where=root,
            remedy="use --dataset FOLDER with its new path",
            code="E-DATASET-NOT-FOUND",
        )
    by_id = {c.id: c for c in read_dataset(root, spacing=spacing, formats=formats, annotated=annotated).cases}
    missing = [i for i in case_ids if i not in by_id]
    if missing:
        raise DatasetError(
            f"lacks held-out cases of this model: {', '.join(missing)}",
            where=root,
            remedy="use the dataset of its training",
        )
    return [by_id[i] for i in case_ids]


def score_held_out(
    cases: Iterable[Case],
    predictions: Mapping[str, Path],
    labels: LabelSet,
    *,
    metrics: Sequence[Metric],
    spacing: Triple | None,
    formats: FormatSettings,
    workers: Workers,
) -> Scores:
    """Score the predictions of held-out cases against their label maps.

    Args:
        predictions: case id -> label map; cases without a label map of their own are left out.
        labels: the model's, because its regions may differ from those of the dataset.
        spacing, formats: see :mod:`decathlete.io.images`.

    Raises:
        GridMismatchError, DatasetError: see :func:`~decathlete.evaluation.evaluate.evaluate_pairs`.
    """
    labelled = {case.id: case for case in cases if case.label is not None}
    return evaluate_pairs(
        {i: (predictions[i], case.label) for i, case in labelled.items() if case.label is not None},
        labels,
        metrics=metrics,
        spacing=spacing,
        formats=formats,
        structures={i: case.structures for i, case in labelled.items() if case.structures is not None},
        unannotated={i: case.unannotated for i, case in labelled.items() if case.unannotated},
        workers=workers,
    )
