"""Train a cell with nnU-Net v2, in the peers' environment: ``python train_nnunet.py TASK``, with the task as JSON.

Its learning-rate schedule is set to end with the time, which its planning and preprocessing are not part of.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import nullcontext
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(folder) for folder in (BENCHMARKS / "accuracy", BENCHMARKS / "peers", BENCHMARKS)]

from cells import DATASETS, Cell

from common.processes import tell
from workloads._nnunet import DATASET, DATASET_ID, make_plans, set_folders
from workloads.dice import train_within


def main() -> None:
    """Train within the time, and predict the held-out cases."""
    task = json.loads(sys.argv[1])
    cell, scratch = Cell(**task["cell"]), Path(task["scratch"])
    set_folders(scratch)
    os.environ["nnUNet_results"] = str(scratch / "nnunet" / f"{cell.minutes:g}min_seed{cell.seed}_{cell.precision}")
    os.environ["nnUNet_n_proc_DA"] = str(task["workers"])
    os.environ["nnUNet_compile"] = "f"
    import torch
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.run.run_training import get_trainer_from_args

    configuration = "2d" if DATASETS[cell.dataset].dims == 2 else "3d_fullres"
    preprocessed = scratch / "preprocessed" / DATASET
    if not (preprocessed / "complete").is_file():
        make_plans(workers=task["workers"])
        DefaultPreprocessor(verbose=False).run(DATASET_ID, configuration, "nnUNetPlans", num_processes=task["workers"])
        shutil.copytree(scratch / "raw" / DATASET / "labelsTr", preprocessed / "gt_segmentations", dirs_exist_ok=True)
        shutil.copy(scratch / "raw" / DATASET / "splits_final.json", preprocessed)
        (preprocessed / "complete").touch()
    torch.manual_seed(cell.seed)
    began = time.perf_counter()
    trainer = get_trainer_from_args(str(DATASET_ID), configuration, cell.fold, device=torch.device("cpu"))
    with torch.autocast("cpu", dtype=torch.bfloat16) if cell.precision == "bf16" else nullcontext():
        steps = train_within(trainer, 60 * cell.minutes)
        trainer.perform_actual_validation()
    plan = trainer.configuration_manager
    tell(
        {
            "predictions": str(Path(trainer.output_folder) / "validation"),
            "minutes_in_all": (time.perf_counter() - began) / 60,
            "notes": {
                "steps": steps,
                "patch_size": list(plan.patch_size),
                "batch_size": plan.batch_size,
            },
        }
    )


if __name__ == "__main__":
    main()
