"""Prepare cases to be predicted, by the plan of a trained model: predicting them then reads no raw image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from decathlete.core.files import writable_folder
from decathlete.core.progress import CaseProgress
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case
from decathlete.dataset.splits import Splits
from decathlete.errors import DatasetError
from decathlete.inference.input_range import channel_means
from decathlete.inference.output.provenance import inputs_digest
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
    workers: int = 2,
    overwrite: bool = False,
    progress: CaseProgress | None = None,
) -> PreparedStore:
    """Prepare a dataset's labelled cases (``val``) or its test images (``test``) by the plan of ``model``.

    They go to ``<prepared>/<dataset>/<2d|3d>_<mode>``, a store that :func:`decathlete.predict` takes as its input.
    Nothing is measured or planned anew, and the dataset may be another than the model's.

    Raises:
        ModelError: ``model`` is missing or damaged.
        DatasetError: the dataset has no such cases.
        OutputError: the folder holds cases prepared by another plan, and ``overwrite`` is not given.
        CasesFailedError: some cases could not be prepared; the others are done and kept.
    """
    plan = ModelBundle.load(model).record.plan
    spec = read_dataset(workspace.dataset(task))
    cases = spec.cases if mode == "val" else spec.test_cases
    if not cases:
        raise DatasetError(
            "has no labelled cases" if mode == "val" else "has no test images",
            where=spec.root,
            remedy="choose the other --mode, or another dataset",
        )
    folder = workspace.prepared_folder(task, plan.dims)
    folder = folder.with_name(f"{folder.name}_{mode}")
    writable_folder(folder.parent)
    chosen = replace(spec, cases=cases, test_cases=())
    return preprocess(
        chosen,
        plan,
        folder,
        fingerprint=Fingerprint(dataset_digest=chosen.digest(), orientation=plan.orientation, cases=(), intensity=()),
        splits=Splits(seed=0, grouped=False, folds=()),  # nothing is split: images may be added later
        about=_about,
        workers=workers,
        overwrite=overwrite,
        progress=progress,
    )


def _about(case: Case, image: Image, restoration: Restoration) -> RawImage:
    return RawImage(
        files=tuple(path.name for path in case.images),
        digest=inputs_digest(case.images),
        channel_means=channel_means(image, restoration),
    )
