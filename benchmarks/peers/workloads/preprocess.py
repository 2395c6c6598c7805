"""Preparing a dataset (reading, cropping, normalising, resampling, writing), fingerprint and plan made before.

Each by its own plan; nothing is configured but the number of workers, one for each core.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from workload import Contender, Measured, Work, Workload

DATASET_ID, DATASET = 999, "Dataset999_Compared"


def _cases(work: Work) -> tuple[dict[str, Any], list[str]]:
    """The manifest and the first cases of the dataset, in the Decathlon's layout."""
    manifest = json.loads((Path(work["data"]) / work["dataset"] / "dataset.json").read_text())
    names = sorted(Path(entry["image"]).name for entry in manifest["training"])
    return manifest, names[: work["cases"]]


def prepare(work: Work, folder: Path) -> None:
    """The same cases, linked, in the Decathlon's layout for us and in nnU-Net's for it."""
    source = Path(work["data"]) / work["dataset"]
    manifest, names = _cases(work)
    for kind in ("imagesTr", "labelsTr"):
        (folder / "decathlon" / kind).mkdir(parents=True)
        (folder / "raw" / DATASET / kind).mkdir(parents=True)
        for name in names:
            (folder / "decathlon" / kind / name).symlink_to(source / kind / name)
            theirs = name.replace(".nii.gz", "_0000.nii.gz") if kind == "imagesTr" else name
            (folder / "raw" / DATASET / kind / theirs).symlink_to(source / kind / name)
    training = [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]
    (folder / "decathlon" / "dataset.json").write_text(
        json.dumps({**manifest, "training": training, "test": [], "numTraining": len(names), "numTest": 0})
    )
    labels = {name: int(value) for value, name in manifest["labels"].items()}
    theirs = {"channel_names": manifest["modality"], "labels": labels, "numTraining": len(names)}
    (folder / "raw" / DATASET / "dataset.json").write_text(json.dumps({**theirs, "file_ending": ".nii.gz"}))


def ours(work: Work, folder: Path) -> Measured:
    from decathlete.dataset.manifest import read_dataset
    from decathlete.dataset.splits import make_splits
    from decathlete.planning.fingerprint import make_fingerprint
    from decathlete.planning.planner import make_plan
    from decathlete.preprocessing.run import preprocess

    workers = len(os.sched_getaffinity(0))
    spec = read_dataset(folder / "decathlon")
    fingerprint = make_fingerprint(spec, workers=workers)
    plan = make_plan(spec, fingerprint, dims=3)
    splits = make_splits(spec)
    rates = []
    for turn in range(work["repeats"]):
        began = time.perf_counter()
        preprocess(spec, plan, folder / f"ours{turn}", fingerprint=fingerprint, splits=splits, workers=workers)
        rates.append(len(spec.cases) / (time.perf_counter() - began))
        shutil.rmtree(folder / f"ours{turn}")
    return Measured(amounts=tuple(rates))


def nnunet(work: Work, folder: Path) -> Measured:
    os.environ["nnUNet_raw"] = str(folder / "raw")
    os.environ["nnUNet_preprocessed"] = str(folder / "preprocessed")
    os.environ["nnUNet_results"] = str(folder / "results")
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    workers = len(os.sched_getaffinity(0))
    if not (folder / "preprocessed" / DATASET / "nnUNetPlans.json").is_file():
        extract_fingerprints([DATASET_ID], num_processes=workers, check_dataset_integrity=False)
        plan_experiments([DATASET_ID])
    rates = []
    for _ in range(work["repeats"]):
        began = time.perf_counter()
        DefaultPreprocessor(verbose=False).run(DATASET_ID, "3d_fullres", "nnUNetPlans", num_processes=workers)
        rates.append(len(_cases(work)[1]) / (time.perf_counter() - began))
    return Measured(amounts=tuple(rates))


WORKLOAD = Workload(
    name="preprocess",
    title="Preparing a dataset for a 3D model",
    unit="cases/s",
    lower_is_better=False,
    sizes={
        "small": {"dataset": "Task04_Hippocampus", "cases": 5, "repeats": 1},
        "full": {"dataset": "STS_CT_respaced", "cases": 12, "repeats": 1},
        "ACDC_respaced": {"dataset": "ACDC_respaced", "cases": 20, "repeats": 1},
        "Task04_Hippocampus": {"dataset": "Task04_Hippocampus", "cases": 208, "repeats": 1},
    },
    contenders=(
        Contender(name="ours", environment="ours", run=ours),
        Contender(name="nnunet", environment="peers", run=nnunet),
    ),
    prepare=prepare,
)
