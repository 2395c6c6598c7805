"""Training end to end: reading, cutting, augmenting and learning together; the same network, patch and batch.

Both plan by the same rules, so that patch and network are the same; the batch is set. Our notes say what share of the
step alone (random numbers in place of reading and augmenting) is reached.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

from workload import Contender, Measured, Work, Workload
from workloads._nnunet import DATASET_ID, first_cases, link_decathlon, link_raw, make_plans, set_folders


def prepare(work: Work, folder: Path) -> None:
    """The same cases, linked, for both, and prepared by us."""
    from decathlete.workflows.preprocess import preprocess
    from decathlete.workflows.workspace import Workspace

    dataset = Path(work["data"]) / work["dataset"]
    names = first_cases(dataset, work["cases"])
    link_raw(dataset, names, folder)
    link_decathlon(dataset, names, folder / "data" / work["dataset"])
    workspace = Workspace(data=folder / "data", prepared=folder / "prepared", results=folder / "results")
    preprocess(work["dataset"], dims=3, workspace=workspace)


def ours(work: Work, folder: Path) -> Measured:
    return _ours(work, folder, "auto")


def ours_fp32(work: Work, folder: Path) -> Measured:
    return _ours(work, folder, "fp32")


def _ours(work: Work, folder: Path, precision: Literal["auto", "fp32"]) -> Measured:
    from decathlete.benchmarking.options import BenchmarkOptions
    from decathlete.benchmarking.run import benchmark
    from decathlete.workflows.workspace import Workspace

    workspace = Workspace(data=folder / "data", prepared=folder / "prepared", results=folder / "results")
    options = BenchmarkOptions(
        mode="train",
        task=work["dataset"],
        real=True,
        augment=True,
        batch_size=work["batch"],
        warmup=2,
        steps=work["steps"],
        precision=precision,
        device="cpu",
    )
    whole = benchmark(options, workspace=workspace).record
    patch = whole.settings.patch_size
    options = replace(options, task=work["dataset"][4:6], real=False, augment=False, patch=patch)
    alone = benchmark(options, workspace=workspace).record
    for name in ("patch_size", "batch_size", "network", "precision"):
        if getattr(whole.settings, name) != getattr(alone.settings, name):
            raise ValueError(f"the step alone has another {name} than the training")
    share = whole.throughput.images_per_s / alone.throughput.images_per_s
    return Measured(amounts=(whole.throughput.images_per_s,), notes={"share of the step alone": share})


def nnunet(work: Work, folder: Path) -> Measured:
    return _nnunet(work, folder, nullcontext())


def nnunet_bf16(work: Work, folder: Path) -> Measured:
    import torch

    return _nnunet(work, folder, torch.autocast("cpu", dtype=torch.bfloat16))


def _nnunet(work: Work, folder: Path, autocast: AbstractContextManager[object]) -> Measured:
    set_folders(folder)
    cores = len(os.sched_getaffinity(0))
    os.environ["nnUNet_n_proc_DA"] = str(cores)
    os.environ["nnUNet_compile"] = "f"
    import torch
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.run.run_training import get_trainer_from_args

    torch.set_num_threads(cores)
    if not (folder / "preprocessed").is_dir():
        make_plans(workers=cores)
        DefaultPreprocessor(verbose=False).run(DATASET_ID, "3d_fullres", "nnUNetPlans", num_processes=cores)
    trainer = get_trainer_from_args(str(DATASET_ID), "3d_fullres", 0, device=torch.device("cpu"))
    trainer.configuration_manager.configuration["batch_size"] = work["batch"]
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    with autocast:
        for _ in range(2):
            trainer.train_step(next(trainer.dataloader_train))
        began = time.perf_counter()
        for _ in range(work["steps"]):
            trainer.train_step(next(trainer.dataloader_train))
        rate = work["steps"] * work["batch"] / (time.perf_counter() - began)
    trainer.dataloader_train._finish() if hasattr(trainer.dataloader_train, "_finish") else None
    trainer.dataloader_val._finish() if hasattr(trainer.dataloader_val, "_finish") else None
    return Measured(amounts=(rate,))


WORKLOAD = Workload(
    name="train",
    title="Training end to end",
    unit="patches/s",
    lower_is_better=False,
    sizes={
        "small": {"dataset": "Task04_Hippocampus", "cases": 6, "batch": 2, "steps": 2},
        "full": {"dataset": "Task04_Hippocampus", "cases": 40, "batch": 4, "steps": 15},
    },
    contenders=(
        Contender(name="ours", environment="ours", run=ours),
        Contender(name="ours, fp32", environment="ours", run=ours_fp32, needs_bf16=True),
        Contender(name="nnunet", environment="peers", run=nnunet),
        Contender(name="nnunet, bf16", environment="peers", run=nnunet_bf16, needs_bf16=True),
    ),
    prepare=prepare,
)
