"""Predicting whole cases, from files to files, with the same weights: a model of nnU-Net, imported into ours.

Unless a trained model is named (``--set model=FOLDER``), it has random weights.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np

from workload import Contender, Measured, Work, Workload
from workloads._nnunet import first_cases, link_raw, make_model, make_plans, set_folders


def prepare(work: Work, folder: Path) -> None:
    """Cases to predict, and nnU-Net's model (in the peers' environment)."""
    dataset = Path(work["data"]) / work["dataset"]
    names = first_cases(dataset, work["cases"])
    (folder / "images").mkdir()
    for name in names:
        (folder / "images" / name.replace(".nii.gz", "_0000.nii.gz")).symlink_to(dataset / "imagesTr" / name)
    if "model" in work:
        shutil.copytree(work["model"], folder / "model")
        return
    link_raw(dataset, first_cases(dataset, max(5, work["cases"])), folder)
    set_folders(folder)
    make_plans(workers=len(os.sched_getaffinity(0)), memory_gb=work["memory_gb"])
    make_model(folder, work["configuration"]).rename(folder / "model")


def ours(work: Work, folder: Path) -> Measured:
    from decathlete.interop.nnunet import import_nnunet
    from decathlete.workflows.predict import predict
    from decathlete.workflows.validate import PredictOptions

    bundle = folder / "bundle"
    if not bundle.exists():
        import_nnunet(folder / "model", bundle)
    began = time.perf_counter()
    options = PredictOptions(tta=work["flips"], precision="fp32", device="cpu")
    predict(bundle, folder / "images", folder / "ours", options=options, overwrite=True)
    seconds = time.perf_counter() - began
    shutil.move(folder / "ours", folder / "ours_last") if not (folder / "ours_last").exists() else None
    shutil.rmtree(folder / "ours", ignore_errors=True)
    return Measured(amounts=(work["cases"] / seconds,))


def nnunet(work: Work, folder: Path) -> Measured:
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    (folder / "nnunet").mkdir(exist_ok=True)
    predictor = nnUNetPredictor(use_mirroring=work["flips"], device=torch.device("cpu"), allow_tqdm=False)
    began = time.perf_counter()
    predictor.initialize_from_trained_model_folder(str(folder / "model"), None, "checkpoint_final.pth")
    predictor.predict_from_files(
        str(folder / "images"),
        str(folder / "nnunet"),
        overwrite=True,
        num_processes_preprocessing=1,
        num_processes_segmentation_export=1,
    )
    return Measured(amounts=(work["cases"] / (time.perf_counter() - began),))


def compare(work: Work, folder: Path) -> list[str]:
    """Dice between the two, case by case and class by class."""
    paths = [
        path for path in sorted((folder / "nnunet").glob("*.nii.gz")) if (folder / "ours_last" / path.name).exists()
    ]
    found = {path.name.removesuffix(".nii.gz"): _agreement(folder / "ours_last" / path.name, path) for path in paths}
    if not found:
        return []
    lowest = min(min(dices.values(), default=1.0) for dices in found.values())
    lines = [f"Dice of ours to nnU-Net's, lowest of any case and class: {lowest:.5f}"]
    for case, dices in found.items():
        lines.append(f"{case}: " + (", ".join(f"class {k} {dice:.5f}" for k, dice in dices.items()) or "both empty"))
    return lines


def _agreement(ours_path: Path, theirs_path: Path) -> dict[int, float]:
    """Foreground value -> Dice of two label maps."""
    import nibabel as nib

    a, b = (np.asarray(nib.load(path).dataobj).astype(np.int64) for path in (ours_path, theirs_path))
    values = [int(value) for value in np.union1d(np.unique(a), np.unique(b)) if value]
    return {v: float(2 * np.sum((a == v) & (b == v)) / (np.sum(a == v) + np.sum(b == v))) for v in values}


def _size(dataset: str, cases: int, *, flips: bool, memory_gb: float, configuration: str) -> Work:
    return {
        "dataset": dataset,
        "cases": cases,
        "flips": flips,
        "memory_gb": memory_gb,
        "configuration": configuration,
    }


WORKLOAD = Workload(
    name="predict",
    title="Predicting whole cases with the same weights",
    unit="cases/s",
    lower_is_better=False,
    sizes={
        "small": _size("Task04_Hippocampus", 2, flips=False, memory_gb=0.5, configuration="3d_fullres"),
        "full": _size("STS_CT_respaced", 3, flips=False, memory_gb=2, configuration="3d_fullres"),
        "flips": _size("STS_CT_respaced", 2, flips=True, memory_gb=2, configuration="3d_fullres"),
        "Task04_Hippocampus": _size("Task04_Hippocampus", 40, flips=True, memory_gb=2, configuration="3d_fullres"),
        "2d": _size("ACDC", 6, flips=True, memory_gb=2, configuration="2d"),
    },
    contenders=(
        Contender(name="ours", environment="ours", run=ours),
        Contender(name="nnunet", environment="peers", run=nnunet),
    ),
    prepare=prepare,
    prepare_in="peers",
    compare=compare,
)
