"""Train a cell with Decathlete, in a process of its own: ``python train_ours.py TASK``, with the task as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[:2]]

from cells import DATASETS, Cell
from prepare_data import dataset_folder

from common.processes import tell
from decathlete.training.config import TrainConfig
from decathlete.workflows.run import run
from decathlete.workflows.workspace import Workspace


def main() -> None:
    """Check, plan, prepare and train within the time, and score the held-out cases."""
    task = json.loads(sys.argv[1])
    cell, scratch = Cell(**task["cell"]), Path(task["scratch"])
    folder = scratch / "ours" / f"{cell.minutes:g}min_seed{cell.seed}"
    began = time.perf_counter()
    result = run(
        dataset_folder(scratch),
        fold=cell.fold,
        dims=2 if DATASETS[cell.dataset].dims == 2 else 3,
        config=TrainConfig(max_time_s=60 * cell.minutes, seed=cell.seed, loggers=()),
        workspace=Workspace(prepared=folder / "prepared", results=folder / "results"),
        workers=task["workers"],
        overwrite=True,
    )
    record = json.loads((result.folder / "run.json").read_text())
    tell(
        {
            "scores": str(result.folder / "scores.json"),
            "minutes_in_all": (time.perf_counter() - began) / 60,
            "notes": {
                "steps": json.loads((result.folder / "logs.json").read_text())["epochs"][-1]["step"],
                **{
                    name: record["plan"][name]
                    for name in ("target_spacing", "coarse_start", "patch_size", "batch_size")
                },
            },
        }
    )


if __name__ == "__main__":
    main()
