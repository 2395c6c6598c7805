"""Preparing a dataset (reading, cropping, normalising, resampling, writing), fingerprint and plan made before.

Each by its own plan; nothing is configured but the number of workers, one for each core.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from workload import Contender, Measured, Work, Workload
from workloads._nnunet import DATASET, DATASET_ID, first_cases, link_decathlon, link_raw, make_plans, set_folders


def prepare(work: Work, folder: Path) -> None:
    """The same cases, linked, in the Decathlon's layout for us and in nnU-Net's for it."""
    dataset = Path(work["data"]) / work["dataset"]
    names = first_cases(dataset, work["cases"])
    link_raw(dataset, names, folder)
    link_decathlon(dataset, names, folder / "decathlon")


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
    set_folders(folder)
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    workers = len(os.sched_getaffinity(0))
    if not (folder / "preprocessed" / DATASET / "nnUNetPlans.json").is_file():
        make_plans(workers=workers)
    rates = []
    for _ in range(work["repeats"]):
        began = time.perf_counter()
        DefaultPreprocessor(verbose=False).run(DATASET_ID, "3d_fullres", "nnUNetPlans", num_processes=workers)
        rates.append(work["cases"] / (time.perf_counter() - began))
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
