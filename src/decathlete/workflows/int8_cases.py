"""Selects the cases for calibration and validation of an int8 program. They never overlap."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from decathlete.core.geometry import Triple
from decathlete.dataset.find_dataset import MANIFEST
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.errors import DatasetError, OptionError
from decathlete.export.images import Images, case_images, find_image_cases, images_of
from decathlete.inference.prepared_inputs import is_store
from decathlete.io.reading import Reading
from decathlete.planning.plan import Plan
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.held_out import load_held_out_cases
from decathlete.workflows.run_images import load_run_images, load_run_record

VALIDATION_STEP = 5
"""Every fifth case of a dataset is for validation if the others are for calibration."""


@dataclass(frozen=True, kw_only=True)
class Int8Cases:
    """Cases for the quantisation of a model.

    Attributes:
        calibrate: prepared images for calibration.
        validate: labelled cases for validation. The model was not trained on them, as far as is known.
    """

    calibrate: Images
    validate: Sequence[Case]


def choose_cases(
    model: Path,
    plan: Plan,
    *,
    dataset: Path | None = None,
    calibration: Path | None = None,
    spacing: Triple | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
) -> Int8Cases:
    """Select the cases for the quantisation of a model.

    A run has both: its training cases are for calibration, its held-out cases for validation. If no case was held out
    (``--fold all``, imported models), the labelled cases of ``dataset`` on which the run was not trained are for
    validation; if they are also needed for calibration, every fifth of them.

    Args:
        model: folder of a run or of a model.
        plan: plan of the model.
        dataset: raw dataset; for a run with held-out cases, the run's dataset if it has moved.
        calibration: dataset (its training cases), image, folder of images or prepared cases for calibration.
        spacing: z, y, x in mm, for files in ``calibration`` and ``dataset`` that do not contain their spacing.
        image_formats: settings of image formats that change how these files are read, by the name of the format.
            Without the two, files in ``dataset`` are read as in the run's training.

    Raises:
        OptionError: no case was held out, and ``dataset`` is not set; or a setting of an image format has no effect.
        DatasetError: there is no case for validation or calibration, or the dataset is missing.
        StoreError: prepared cases in ``calibration`` cannot be used.
        ImageError: an image in ``calibration`` cannot be used.
    """
    record = load_run_record(model)
    given = Reading().revised(spacing, image_formats)
    reading = record.reading.revised(spacing, image_formats) if record else given
    validation, others = _choose_validation(
        model, record, dataset, reading, for_calibration=not (calibration or record)
    )
    named = [*validation, *others] if dataset is not None else []
    if calibration is not None:
        images, candidates = _load_calibration(validation, calibration, plan, given)
        named += candidates
    elif record is not None:
        images = _load_training_images(record, plan, dataset, reading)
    else:
        images = case_images(plan, others)
    given.check(path for case in named for path in case.files)
    return Int8Cases(calibrate=images, validate=[case for case in validation if case.label is not None])


def _choose_validation(
    model: Path, record: RunRecord | None, dataset: Path | None, reading: Reading, *, for_calibration: bool
) -> tuple[list[Case], list[Case]]:
    """Return the cases for validation, and those of a dataset that are left for calibration.

    Args:
        reading: how the files of ``dataset`` are read.

    Raises:
        OptionError: no case was held out, and ``dataset`` is not set.
        DatasetError: there is no case for validation, or the dataset is missing.
    """
    if record is not None and record.val:
        return load_held_out_cases(model, record, dataset, reading=None if dataset is None else reading), []
    if dataset is None:
        raise OptionError(
            "no case was held out from this model, so that the loss of Dice in int8 is unknown",
            where=model,
            remedy="use --dataset FOLDER with labelled cases on which it was not trained",
        )
    trained = record if record is not None and record.dataset == dataset.resolve().name else None
    spec = read_dataset(
        dataset,
        spacing=reading.spacing,
        formats=reading.formats,
        annotated=None if trained is None else trained.annotated,
    )
    return _split_dataset(spec, () if trained is None else trained.train, for_calibration=for_calibration)


def _split_dataset(
    spec: DatasetSpec, training_ids: Collection[str], *, for_calibration: bool
) -> tuple[list[Case], list[Case]]:
    """Return the labelled cases for validation, and those for calibration; neither are among ``training_ids``."""
    labelled = [case for case in spec.cases if case.label is not None and case.id not in training_ids]
    if not labelled or (for_calibration and len(labelled) < 2):
        trained = f"; the model was trained on {len(training_ids)} others" if training_ids else ""
        raise DatasetError(
            f"has {len(labelled)} labelled cases for validation{trained}",
            where=spec.root,
            remedy="use a dataset with more labelled cases, and --calibration with other images",
        )
    if not for_calibration:
        return labelled, []
    validation = labelled[VALIDATION_STEP - 1 :: VALIDATION_STEP] or labelled[-1:]
    return validation, [case for case in labelled if case not in validation]


def _load_calibration(
    validation: Sequence[Case], calibration: Path, plan: Plan, reading: Reading
) -> tuple[Images, list[Case]]:
    """Load the images in ``calibration`` without those that have the id of a validation case.

    Returns:
        the images, and the cases whose files are read for them.
    """
    cases: list[Case] = []
    if is_store(calibration):
        candidates = images_of(plan, calibration, reading)
    else:
        cases = _read_calibration(calibration, plan, reading)
        candidates = case_images(plan, cases)
    excluded = {case.id for case in validation}
    images = {case_id: read for case_id, read in candidates.items() if case_id not in excluded}
    if not images:
        raise DatasetError(
            "contains only the validation cases",
            where=calibration,
            remedy="use other images for --calibration",
        )
    return images, cases


def _read_calibration(calibration: Path, plan: Plan, reading: Reading) -> list[Case]:
    """Return the cases of a dataset, or of an image or a folder of images."""
    if (calibration / MANIFEST).is_file():
        return list(read_dataset(calibration, spacing=reading.spacing, formats=reading.formats).cases)
    reading = replace(reading, must_apply=False)  # checked together with the files of the dataset
    return find_image_cases(calibration, n_channels=len(plan.channels), reading=reading)


def _load_training_images(record: RunRecord, plan: Plan, dataset: Path | None, reading: Reading) -> Images:
    """Load the images of the run's training cases; ``reading`` is for the files of ``dataset``."""
    images = load_run_images(record, record.train, plan, dataset=dataset, reading=reading)
    if not images:
        raise DatasetError(
            "neither the prepared nor the raw training cases of the model exist any more",
            where=Path(record.dataset_root or record.prepared),
            remedy="use --calibration with similar images",
        )
    return images
