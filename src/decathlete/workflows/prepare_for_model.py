"""Prepares cases for prediction with the plan of a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from decathlete.core.geometry import Triple
from decathlete.core.output_paths import check_output_folder
from decathlete.core.parallel import Workers
from decathlete.core.progress import CaseProgress
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case
from decathlete.dataset.splits import Splits
from decathlete.errors import DatasetError, OptionError
from decathlete.inference.input_range import channel_means
from decathlete.inference.output.provenance import inputs_digest
from decathlete.io.format_settings import format_settings
from decathlete.io.images import Image
from decathlete.models.bundle import ModelBundle
from decathlete.planning.fingerprint import Fingerprint
from decathlete.preprocessing.prepared import Restoration
from decathlete.preprocessing.run import preprocess
from decathlete.preprocessing.store import PreparedStore, RawImage
from decathlete.workflows.workspace import Workspace


def prepare_for_model(
    task: str | Path,
    *,
    model: Path,
    mode: Literal["val", "test"] = "test",
    workspace: Workspace = Workspace(),
    spacing: Triple | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    workers: Workers = 2,
    overwrite: bool = False,
    progress: CaseProgress | None = None,
) -> PreparedStore:
    """Prepare the labelled cases (``val``) or the test images (``test``) of a dataset with the plan of a model.

    They are written to ``<prepared>/<dataset>/<configuration>_<mode>``. :func:`decathlete.predict` accepts this folder
    as input and then reads no raw images. The dataset may differ from that of the model.

    Args:
        task: dataset: number, folder name or path.
        model: folder of a run or of a model.
        mode: ``val``: labelled cases; ``test``: test images.
        workspace: folders of data and prepared data.
        spacing: z, y, x in mm, for files that do not contain their spacing.
        image_formats: settings of image formats that change how files are read, by the name of the format.
        workers: number of cases that are prepared in parallel, or an executor (:func:`decathlete.connect_cluster`).
        overwrite: replace cases that were prepared with another plan.
        progress: called after each case.

    Raises:
        ModelError: the model is missing or damaged.
        OptionError: the model is a cascade.
        DatasetError: the dataset has no such cases.
        OutputError: the folder contains cases prepared with another plan, and ``overwrite`` is not set.
        CasesFailedError: some cases could not be prepared; all others are.
    """
    check_output_folder(workspace.prepared / workspace.dataset(task).resolve().name)
    record = ModelBundle.load(model).record
    if record.is_cascade:
        raise OptionError(
            "is a cascade, whose second stage needs the prediction of the first",
            where=model,
            remedy="predict the images themselves with `decathlete predict`",
        )
    plan = record.plan.on_own_grid()
    formats = format_settings(image_formats or {})
    spec = read_dataset(workspace.dataset(task), spacing=spacing, formats=formats, annotated={})
    spec.check_formats()
    cases = spec.cases if mode == "val" else spec.test_cases
    if not cases:
        raise DatasetError(
            "has no labelled cases" if mode == "val" else "has no test images",
            where=spec.root,
            remedy="use the other --mode, or another dataset",
        )
    folder = workspace.prepared_folder(task, plan.configuration_name)
    folder = folder.with_name(f"{folder.name}_{mode}")
    selection = replace(spec, cases=cases, test_cases=())
    return preprocess(
        selection,
        plan,
        folder,
        fingerprint=Fingerprint(
            dataset_digest=selection.digest(), orientation=plan.orientation, cases=(), intensity=()
        ),
        splits=Splits(seed=0, grouped=False, folds=()),  # no split, so that images can be added later
        describe_image=_describe_raw_image,
        workers=workers,
        overwrite=overwrite,
        progress=progress,
    )


def _describe_raw_image(case: Case, image: Image, restoration: Restoration) -> RawImage:
    return RawImage(
        files=tuple(path.name for path in case.images),
        digest=inputs_digest(case.images),
        channel_means=channel_means(image, restoration),
    )
