"""How good after so many minutes: fold 0 of a dataset, trained for a budget of wall time, scored on the held-out cases.

nnU-Net's schedule is set to end at the budget. Scores are on the original grid;
both are means over cases of class means as long as every held-out case has every class, as the hippocampus' have.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from workload import Contender, Measured, Work, Workload
from workloads._nnunet import DATASET, DATASET_ID, first_cases, link_decathlon, link_raw, make_plans, set_folders

RATE_EXPONENT = 0.9
"""Of nnU-Net's polynomial schedule."""


def prepare(work: Work, folder: Path) -> None:
    """The cases, linked for nnU-Net; prepared by us; both hold out the same ones."""
    from decathlete.workflows.preprocess import preprocess
    from decathlete.workflows.workspace import Workspace

    dataset = Path(work["data"]) / work["dataset"]
    names = first_cases(dataset, work["cases"])
    link_raw(dataset, names, folder)
    link_decathlon(dataset, names, folder / "data" / work["dataset"])
    store = preprocess(work["dataset"], dims=3, workspace=_workspace(folder, Workspace))
    fold = store.splits.folds[0]
    split = {"train": list(fold.train), "val": list(fold.val)}
    (folder / "splits.json").write_text(json.dumps([split] * 5))


def _workspace(folder: Path, kind: Any) -> Any:
    return kind(data=folder / "data", prepared=folder / "prepared", results=folder / "results")


def ours(work: Work, folder: Path) -> Measured:
    from decathlete.training.config import TrainConfig
    from decathlete.workflows.run import run
    from decathlete.workflows.workspace import Workspace

    began = time.perf_counter()
    result = run(
        work["dataset"],
        config=TrainConfig(max_time_s=60 * work["minutes"], seed=work["seed"]),
        workspace=_workspace(folder, Workspace),
        overwrite=True,
    )
    if result.scores is None:
        raise RuntimeError("the fold was not scored")
    return Measured(
        amounts=(float(result.scores.headline.dice),), notes={"minutes in all": (time.perf_counter() - began) / 60}
    )


def nnunet(work: Work, folder: Path) -> Measured:
    set_folders(folder)
    cores = len(os.sched_getaffinity(0))
    os.environ["nnUNet_n_proc_DA"] = str(cores)
    os.environ["nnUNet_compile"] = "f"
    import torch
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.run.run_training import get_trainer_from_args

    torch.set_num_threads(cores)
    if not (folder / "preprocessed" / DATASET / "nnUNetPlans_3d_fullres").is_dir():
        make_plans(workers=cores)
        DefaultPreprocessor(verbose=False).run(DATASET_ID, "3d_fullres", "nnUNetPlans", num_processes=cores)
    truth = folder / "preprocessed" / DATASET / "gt_segmentations"  # where nnU-Net's validation looks for it
    if not truth.is_dir():
        shutil.copytree(folder / "raw" / DATASET / "labelsTr", truth)
    splits = folder / "preprocessed" / DATASET / "splits_final.json"
    splits.write_text((folder / "splits.json").read_text())
    began = time.perf_counter()
    trainer = get_trainer_from_args(str(DATASET_ID), "3d_fullres", 0, device=torch.device("cpu"))
    if work.get("batch"):
        trainer.configuration_manager.configuration["batch_size"] = work["batch"]
    steps = train_within(trainer, 60 * work["minutes"])
    trainer.perform_actual_validation()
    summary = json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())
    dices = [m["Dice"] for case in summary["metric_per_case"] for m in case["metrics"].values()]
    dice = float(np.nanmean(dices))
    return Measured(amounts=(dice,), notes={"steps": steps, "minutes in all": (time.perf_counter() - began) / 60})


def train_within(trainer: Any, budget_s: float) -> int:
    """nnU-Net's own steps, with its schedule set to end with the budget; how many there were.

    Its learning rate falls with each epoch of a thousand; here with each step, by the share of the time that has
    passed, so that it ends near zero however long steps take. Its epochs remain, with one batch of validation.
    """
    trainer.num_val_iterations_per_epoch = 1
    trainer.on_train_start()
    began = time.perf_counter()
    steps = 0
    while time.perf_counter() - began < budget_s:
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        outputs = []
        while len(outputs) < trainer.num_iterations_per_epoch:
            left = 1 - (time.perf_counter() - began) / budget_s
            if left <= 0:
                break
            for group in trainer.optimizer.param_groups:
                group["lr"] = trainer.initial_lr * left**RATE_EXPONENT
            outputs.append(trainer.train_step(next(trainer.dataloader_train)))
        steps += len(outputs)
        if outputs:
            trainer.on_train_epoch_end(outputs)
            with torch_no_grad():
                trainer.on_validation_epoch_start()
                trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
            trainer.on_epoch_end()
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):
            loader._finish()
    return steps


def torch_no_grad() -> Any:
    import torch

    return torch.no_grad()


WORKLOAD = Workload(
    name="dice",
    title="Mean Dice of fold 0 after a budget of training time",
    unit="Dice",
    lower_is_better=False,
    sizes={
        "small": {"dataset": "Task04_Hippocampus", "cases": 10, "minutes": 0.5, "seed": 1, "batch": 1},
        "full": {"dataset": "Task04_Hippocampus", "cases": 208, "minutes": 5, "seed": 1},
        "20": {"dataset": "Task04_Hippocampus", "cases": 208, "minutes": 20, "seed": 1},
        "40": {"dataset": "Task04_Hippocampus", "cases": 208, "minutes": 40, "seed": 1},
    },
    contenders=(
        Contender(name="ours", environment="ours", run=ours),
        Contender(name="nnunet", environment="peers", run=nnunet),
    ),
    prepare=prepare,
)
