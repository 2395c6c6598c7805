"""Which cases an int8 program is calibrated on, and which decide whether it is good enough: never the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from decathlete.dataset.manifest import MANIFEST, read_dataset
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.errors import DatasetError, OptionError
from decathlete.export.images import Images, case_images, images_of
from decathlete.planning.plan import Plan
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.run_images import run_images
from decathlete.workflows.validate import held_out_cases, run_of

EVERY = 5
"""Of a dataset that serves for both, every fifth case decides, and the others calibrate."""


@dataclass(frozen=True, kw_only=True)
class Int8Cases:
    """What quantisation needs to see.

    Attributes:
        calibrate: prepared images of training cases.
        validate: labelled cases that the model was not trained on, as far as is known.
    """

    calibrate: Images
    validate: Sequence[Case]


def choose_cases(model: Path, plan: Plan, *, dataset: Path | None = None, calibration: Path | None = None) -> Int8Cases:
    """The cases for a model.

    A run's own: its training cases calibrate, those that its fold held out decide. Where nothing was held out (``--fold
    all``, imported models) ``dataset`` decides: with its labelled cases that the run was not trained on; of a dataset
    that is to calibrate, too, with every fifth of them.

    Args:
        model: a run's folder or a model's.
        dataset: a raw dataset; of a run with held-out cases, where the run's own lies now.
        calibration: a dataset (its training cases), an image, a folder of images or prepared cases, instead.

    Raises:
        OptionError: nothing was held out, and no ``dataset`` is given.
        DatasetError: no case is left to decide, or to calibrate on; or the dataset is not there.
        StoreError, ImageError: what ``calibration`` names cannot be used.
    """
    run = run_of(model)
    record = None if run is None else RunRecord.load(run / "run.json")
    others: Sequence[Case] = ()
    if run is not None and record is not None and record.val:
        deciding = held_out_cases(run, record, dataset)
    elif dataset is not None:
        deciding, others = _of_dataset(read_dataset(dataset), record, also_calibrates=not (calibration or record))
    else:
        raise OptionError(
            "no case was held out from this model, so nothing tells what int8 would cost",
            where=model,
            remedy="name a dataset with labelled cases that it was not trained on: --dataset FOLDER",
        )
    if calibration is not None:
        images = _without(deciding, calibration, plan)
    elif record is not None:
        images = _trained_on(record, plan, dataset)
    else:
        images = case_images(plan, others)
    return Int8Cases(calibrate=images, validate=[case for case in deciding if case.label is not None])


def _of_dataset(spec: DatasetSpec, record: RunRecord | None, *, also_calibrates: bool) -> tuple[list[Case], list[Case]]:
    """The cases that decide, and the others."""
    known = set(record.train) if record is not None and spec.name == record.dataset else set()
    labelled = [case for case in spec.cases if case.label is not None and case.id not in known]
    if not labelled or (also_calibrates and len(labelled) < 2):
        trained = f"; the model was trained on {len(known)} others" if known else ""
        raise DatasetError(
            f"has {len(labelled)} labelled cases to decide on{trained}",
            where=spec.root,
            remedy="name a dataset with more labelled cases, and images to calibrate on with --calibration",
        )
    if not also_calibrates:
        return labelled, []
    deciding = labelled[EVERY - 1 :: EVERY] or labelled[-1:]
    return deciding, [case for case in labelled if case not in deciding]


def _without(deciding: Sequence[Case], calibration: Path, plan: Plan) -> Images:
    """The images that ``calibration`` names, but for cases that are called like one that decides."""
    is_dataset = (calibration / MANIFEST).is_file()
    found = case_images(plan, read_dataset(calibration).cases) if is_dataset else images_of(plan, calibration)
    taken = {case.id for case in deciding}
    images = {case_id: read for case_id, read in found.items() if case_id not in taken}
    if not images:
        raise DatasetError(
            "has only the cases that decide whether int8 is good enough",
            where=calibration,
            remedy="name other images with --calibration",
        )
    return images


def _trained_on(record: RunRecord, plan: Plan, dataset: Path | None) -> Images:
    """The run's training cases."""
    images = run_images(record, record.train, plan, dataset=dataset)
    if not images:
        raise DatasetError(
            "neither the prepared cases nor the raw ones that the model was trained on are where they were",
            where=Path(record.dataset_root or record.prepared),
            remedy="name images like them with --calibration",
        )
    return images
