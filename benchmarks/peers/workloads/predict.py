"""Predicting whole cases, from files to files, with the same weights: a model of nnU-Net, imported into ours.

Unless a trained model is named (``--set model=FOLDER``), it has random weights. ``ours`` takes the engine that users
get by default: OpenVINO where it is installed.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    return _ours(work, folder, "ours")


def ours_torch(work: Work, folder: Path) -> Measured:
    return _ours(work, folder, "ours, torch", engine="torch")


def ours_fp32(work: Work, folder: Path) -> Measured:
    return _ours(work, folder, "ours, fp32", precision="fp32")


def ours_quarter(work: Work, folder: Path) -> Measured:
    """Less work: windows overlap by a quarter of their size, nnU-Net's by a half."""
    return _ours(work, folder, "ours, overlap 0.25", overlap=0.25)


def ours_int8(work: Work, folder: Path) -> Measured:
    """Less work: convolutions in int8, accepted by the Dice of labelled cases."""
    from decathlete.workflows.export_int8 import export_int8

    program = folder / "int8"
    if not program.exists():
        made = export_int8(_bundle(folder), program, dataset=Path(work["data"]) / work["dataset"]).quantisation
        fall = f"Dice {made.dice_fp32:.4f} in fp32, {made.dice_int8:.4f} in int8, of {made.validated_on} cases"
        (folder / "int8.txt").write_text(fall)
    measured = _ours(work, folder, "ours, int8", model=program)
    return replace(measured, notes={"accepted at": (folder / "int8.txt").read_text()})


def _bundle(folder: Path) -> Path:
    """nnU-Net's model as one of ours."""
    from decathlete.interop.nnunet import import_nnunet

    bundle = folder / "bundle"
    if not bundle.exists():
        import_nnunet(folder / "model", bundle)
    return bundle


def _ours(work: Work, folder: Path, name: str, *, model: Path | None = None, **chosen: Any) -> Measured:
    """Predict, in the default precision unless another is chosen, and leave the label maps in the folder ``name``."""
    from decathlete.inference.options import PredictOptions
    from decathlete.workflows.predict import predict

    bundle = model or _bundle(folder)
    shutil.rmtree(folder / name, ignore_errors=True)  # what a round before made would be kept, and nothing computed
    began = time.perf_counter()
    options = PredictOptions(**({"tta": work["flips"], "device": "cpu"} | chosen))
    predict(bundle, folder / "images", folder / name, options=options, overwrite=True)
    return Measured(amounts=(work["cases"] / (time.perf_counter() - began),))


def nnunet(work: Work, folder: Path) -> Measured:
    return _nnunet(work, folder, nullcontext(), "nnunet")


def nnunet_bf16(work: Work, folder: Path) -> Measured:
    import torch

    return _nnunet(work, folder, torch.autocast("cpu", dtype=torch.bfloat16), "nnunet, bf16")


def _nnunet(work: Work, folder: Path, autocast: AbstractContextManager[object], name: str) -> Measured:
    """Predict and leave the label maps in the folder ``name``."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    (folder / name).mkdir(exist_ok=True)
    predictor = nnUNetPredictor(use_mirroring=work["flips"], device=torch.device("cpu"), allow_tqdm=False)
    began = time.perf_counter()
    predictor.initialize_from_trained_model_folder(str(folder / "model"), None, "checkpoint_final.pth")
    with autocast:
        predictor.predict_from_files(
            str(folder / "images"),
            str(folder / name),
            overwrite=True,
            num_processes_preprocessing=1,
            num_processes_segmentation_export=1,
        )
    return Measured(amounts=(work["cases"] / (time.perf_counter() - began),))


def compare(work: Work, folder: Path) -> list[str]:
    """Dice of each of ours to nnU-Net's; of the default also case by case and class by class."""
    lines = []
    for name in ("ours", "ours, fp32", "ours, torch", "ours, overlap 0.25", "ours, int8"):
        found = _agreements(folder / name, folder / "nnunet")
        if found:
            lowest = min(min(dices.values(), default=1.0) for dices in found.values())
            lines.append(f"Dice of {name} to nnU-Net's, lowest of any case and class: {lowest:.5f}")
        if name == "ours":
            lines += [f"{case}: {_spelled(dices)}" for case, dices in found.items()]
    return lines


def _agreements(ours: Path, theirs: Path) -> dict[str, dict[int, float]]:
    """Case -> foreground value -> Dice, of the cases that both have predicted."""
    paths = [path for path in sorted(theirs.glob("*.nii.gz")) if (ours / path.name).exists()]
    return {path.name.removesuffix(".nii.gz"): _agreement(ours / path.name, path) for path in paths}


def _spelled(dices: dict[int, float]) -> str:
    return ", ".join(f"class {k} {dice:.5f}" for k, dice in dices.items()) or "both empty"


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
        Contender(name="ours, fp32", environment="ours", run=ours_fp32, needs_bf16=True),
        Contender(name="ours, torch", environment="ours", run=ours_torch),
        Contender(name="ours, overlap 0.25", environment="ours", run=ours_quarter),
        Contender(name="ours, int8", environment="ours", run=ours_int8),
        Contender(name="nnunet", environment="peers", run=nnunet),
        Contender(name="nnunet, bf16", environment="peers", run=nnunet_bf16, needs_bf16=True),
    ),
    prepare=prepare,
    prepare_in="peers",
    compare=compare,
)
