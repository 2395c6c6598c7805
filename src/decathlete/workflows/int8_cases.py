"""Selects the cases for calibration and validation of an int8 program. They never overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from decathlete.dataset.find_dataset import MANIFEST
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.errors import DatasetError, OptionError
from decathlete.export.images import Images, case_images, images_of
from decathlete.io.format_settings import format_settings
from decathlete.planning.plan import Plan
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.held_out import load_held_out_cases
from decathlete.workflows.run_images import load_run_images
from decathlete.workflows.validate import find_run_folder

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


def choose_cases(model: Path, plan: Plan, *, dataset: Path | None = None, calibration: Path | None = None) -> Int8Cases:
    """Select the cases for the quantisation of a model.

    A run has both: its training cases are for calibration, its held-out cases for validation. If no case was held out
    (``--fold all``, imported models), the labelled cases of ``dataset`` on which the run was not trained are for
    validation; if they are also needed for calibration, every fifth of them.

    Args:
        model: folder of a run or of a model.
        plan: plan of the model.
        dataset: raw dataset; for a run with held-out cases, the run's dataset if it has moved.
        calibration: dataset (its training cases), image, folder of images or prepared cases for calibration.

    Raises:
        OptionError: no case was held out, and ``dataset`` is not set.
        DatasetError: there is no case for validation or calibration, or the dataset is missing.
        StoreError: prepared cases in ``calibration`` cannot be used.
        ImageError: an image in ``calibration`` cannot be used.
    """
    run = find_run_folder(model)
    record = None if run is None else RunRecord.load(run / "run.json")
    others: Sequence[Case] = ()
    if run is not None and record is not None and record.val:
        validation = load_held_out_cases(run, record, dataset)
    elif dataset is not None:
        validation, others = _split_dataset(
            read_dataset(
                dataset,
                spacing=record.spacing if record else None,
                formats=format_settings(record.image_formats) if record else (),
                annotated=(record.annotated or None) if record else None,
            ),
            record,
            for_calibration=not (calibration or record),
        )
    else:
        raise OptionError(
            "no case was held out from this model, so that the loss of Dice in int8 is unknown",
            where=model,
            remedy="use --dataset FOLDER with labelled cases on which it was not trained",
        )
    if calibration is not None:
        images = _load_calibration(validation, calibration, plan)
    elif record is not None:
        images = _load_training_images(record, plan, dataset)
    else:
        images = case_images(plan, others)
    return Int8Cases(calibrate=images, validate=[case for case in validation if case.label is not None])


def _split_dataset(
    spec: DatasetSpec, record: RunRecord | None, *, for_calibration: bool
) -> tuple[list[Case], list[Case]]:
    """Return the labelled cases for validation, and those for calibration."""
    training_ids = set(record.train) if record is not None and spec.name == record.dataset else set()
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


def _load_calibration(validation: Sequence[Case], calibration: Path, plan: Plan) -> Images:
    """Load the images in ``calibration`` without those that have the id of a validation case."""
    is_dataset = (calibration / MANIFEST).is_file()
    candidates = case_images(plan, read_dataset(calibration).cases) if is_dataset else images_of(plan, calibration)
    excluded = {case.id for case in validation}
    images = {case_id: read for case_id, read in candidates.items() if case_id not in excluded}
    if not images:
        raise DatasetError(
            "contains only the validation cases",
            where=calibration,
            remedy="use other images for --calibration",
        )
    return images


def _load_training_images(record: RunRecord, plan: Plan, dataset: Path | None) -> Images:
    """Load the images of the run's training cases."""
    images = load_run_images(record, record.train, plan, dataset=dataset)
    if not images:
        raise DatasetError(
            "neither the prepared nor the raw training cases of the model exist any more",
            where=Path(record.dataset_root or record.prepared),
            remedy="use --calibration with similar images",
        )
    return images
