"""Trains a small model with nnU-Net v2 itself, and predicts with it; run by the Python of ``make peers``.

Usage: train_nnunet.py FOLDER CONFIGURATION. FOLDER gets ``raw``, ``preprocessed``, ``results`` and ``predicted``,
``predicted_mirrored``; ``raw/Dataset999_Phantom`` must be there.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ROOT, CONFIGURATION = Path(sys.argv[1]), sys.argv[2]
os.environ.update(
    {f"nnUNet_{name}": str(ROOT / name) for name in ("raw", "preprocessed", "results")}
    | {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
)

import numpy as np
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
    preprocess,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

DATASET = 999
ITERATIONS = 150
"""With 60 some beginnings still segment nothing."""


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # nnU-Net's own generators are numpy's global one
    extract_fingerprints([DATASET], num_processes=1, check_dataset_integrity=True)
    plan_experiments([DATASET])
    prepared = ROOT / "preprocessed" / "Dataset999_Phantom"
    narrow(prepared / "nnUNetPlans.json")
    preprocess([DATASET], configurations=[CONFIGURATION], num_processes=[1])
    os.environ.update({"nnUNet_n_proc_DA": "0"})  # augment in this process
    trainer = nnUNetTrainer(
        json.loads((prepared / "nnUNetPlans.json").read_text()) | {"continue_training": False},
        CONFIGURATION,
        0,
        json.loads((prepared / "dataset.json").read_text()),
        device=torch.device("cpu"),
    )
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, ITERATIONS, 1
    trainer.run_training()
    predict(Path(trainer.output_folder_base))


def narrow(path: Path) -> None:
    """Nothing but narrower: the planned network would take minutes a step on a CPU."""
    plans = json.loads(path.read_text())
    for configuration in plans["configurations"].values():
        kwargs = configuration.get("architecture", {}).get("arch_kwargs", {})
        if kwargs:
            kwargs["features_per_stage"] = [min(4 * 2**i, 16) for i in range(kwargs["n_stages"])]
            configuration["batch_size"] = 2
    path.write_text(json.dumps(plans))


def predict(model: Path) -> None:
    images = sorted((ROOT / "raw" / "Dataset999_Phantom" / "imagesTs").iterdir())
    for mirrored in (False, True):
        predictor = nnUNetPredictor(use_mirroring=mirrored, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(model), (0,))
        out = ROOT / f"predicted{'_mirrored' * mirrored}"
        out.mkdir()
        predictor.predict_from_files_sequential([[str(p)] for p in images], [str(out / p.name[:-12]) for p in images])


if __name__ == "__main__":
    main()
