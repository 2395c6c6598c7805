"""Check that two checkouts train, prepare and predict the same, bit for bit.

Each checkout runs the same fixed-seed trainings on the same made-up data through its command line: 2D, 3D, regions and
residual encoder, in fp32, on one thread, with augmentation and validation. Then prepared arrays, losses, weights,
label maps and probabilities are compared. The exit code is 1 if anything differs.

    git archive 3bb6fa4 src | tar x -C OLD
    python benchmarks/equality/run.py --old OLD/src --new src --old-results RESULTS

Augmentation's random numbers are keyed by the transform's name since version 2 of the goldens; earlier code draws
others, so both checkouts have to be from the same side of that change.

The results of ``--old`` stay in ``RESULTS``. The next call reuses them if torch, the processor's instruction set and
the trainings are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data import make_data
from results import compare_sides, only_folder, table

RECORD = "equality.json"

COMMON = (
    "--epochs=2", "--val-every=1", "--seed=7", "--device=cpu", "--precision=fp32", "--logger=none",
    "--workers=1", "--readers=1", "--n-folds=3", "--fold=0", "--ema-decay=0.9",
)  # fmt: skip
TRAININGS: dict[str, tuple[str, ...]] = {
    "2d": ("Task01_Thick", "--dim=2", "--steps-per-epoch=100", "--batch-size=6", "--filters=4,8,16,32",
           "--set", "mirror_axes=0,1"),
    "3d": ("Task01_Thick", "--dim=3", "--steps-per-epoch=60", "--batch-size=2", "--filters=4,8,16",
           "--set", "mirror_axes=0,1,2", "--optimizer=adamw", "--tta"),
    "regions": ("Task02_Pair", "--dim=3", "--steps-per-epoch=60", "--batch-size=2", "--filters=4,8,16",
                "--norm=batch", "--schedule=poly", "--regions=whole=1,2;core=2", "--regions-order=1,2"),
    "residual": ("Task02_Pair", "--dim=3", "--steps-per-epoch=60", "--batch-size=2", "--filters=4,8,16,16",
                 "--block=residual", "--min-fmap=2", "--focal", "--set", "patch_size=16,16,16",
                 "--set", "mirror_axes=0,2"),
}  # fmt: skip
"""Name -> dataset and options. Batch, widths and mirroring are set: the number of processors changes nothing."""


def conditions() -> dict[str, Any]:
    """What results depend on beside the checkout."""
    return {
        "trainings": {name: list(options) for name, options in TRAININGS.items()},
        "common": list(COMMON),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
    }


def source_folder(path: Path) -> Path:
    """The folder to put on PYTHONPATH: ``path`` or its ``src``."""
    for folder in (path, path / "src"):
        if (folder / "decathlete" / "__init__.py").is_file():
            return folder.resolve()
    raise SystemExit(f"{path} holds no package decathlete")


def renamed(arguments: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Arguments with other names of options or of plan fields: ``{"mirror_axes": "flip_axes"}``."""
    pairs = [text.partition("=") for text in arguments]
    return [names.get(name, name) + sign + value for name, sign, value in pairs]


def run_side(source: Path, folder: Path, names: Sequence[str], new_names: Mapping[str, str]) -> None:
    """Run the trainings of one checkout into ``folder``; the record is written when all have ended.

    Args:
        new_names: of options, see :func:`renamed`.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("DECATHLETE_", "MKL_", "OMP_"))
    } | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *renamed(arguments, new_names)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{source}: {' '.join(arguments)} failed\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done.stdout

    folder.mkdir(parents=True, exist_ok=True)
    imported = Path(python("-c", "import decathlete; print(decathlete.__file__)").strip())
    if not imported.is_relative_to(source):
        raise SystemExit(f"Python imports {imported}, not the package in {source}")
    make_data(folder / "data")
    for name in names:
        started = time.monotonic()
        dataset, *options = TRAININGS[name]
        roots = ("--data=data", f"--prepared={name}/prepared", f"--results={name}/results")
        python("-m", "decathlete", "run", dataset, *options, *COMMON, *roots)
        model, images = str(only_folder(folder / name / "results", "fold_0")), f"data/{dataset}/imagesTs"
        python("-m", "decathlete", "predict", f"--model={model}", f"--input={images}", f"--output={name}/probabilities",
               "--save-probabilities", "--device=cpu", "--precision=fp32")  # fmt: skip
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    (folder / RECORD).write_text(json.dumps(conditions() | {"names": list(names)}, indent=1))


def is_reusable(folder: Path, names: Sequence[str]) -> bool:
    """Whether ``folder`` holds finished results of the same trainings under the same conditions."""
    path = folder / RECORD
    if not path.is_file():
        return False
    record = json.loads(path.read_text())
    return set(names) <= set(record.pop("names")) and record == conditions()


def main() -> int:
    """Run what is missing, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="Checkout or src folder of the old code.")
    parser.add_argument("--new", type=Path, help="Checkout or src folder of the new code; without it only --old runs.")
    parser.add_argument("--old-results", type=Path, help="Folder of the old side's results; reused if they fit.")
    parser.add_argument("--new-results", type=Path, help="Folder of the new side's results; must not exist.")
    parser.add_argument(
        "--rename",
        action="append",
        default=[],
        metavar="OLD:NEW",
        help="An option or plan field that --new calls by another name: --rename=--seed:--random-seed.",
    )
    parser.add_argument("--trainings", default=",".join(TRAININGS), help="Names, with commas.")
    arguments = parser.parse_args()
    names = arguments.trainings.split(",")
    new_names = dict(text.split(":", 1) for text in arguments.rename)
    if unknown := sorted(set(names) - set(TRAININGS)):
        parser.error(f"unknown trainings {', '.join(unknown)}; choose from {', '.join(TRAININGS)}")
    with tempfile.TemporaryDirectory() as temporary:
        old = arguments.old_results or Path(temporary) / "old"
        new = arguments.new_results or Path(temporary) / "new"
        if not is_reusable(old, names):
            if arguments.old is None:
                parser.error(f"{old} holds no results of these trainings on such a machine: give --old")
            _run_into(old, arguments.old, names, {})
        if arguments.new is None:
            return 0
        _run_into(new, arguments.new, names, new_names)
        comparisons = list(compare_sides(old, new, names))
    print(table(comparisons))
    return 0 if all(c.equal for c in comparisons) else 1


def _run_into(folder: Path, checkout: Path, names: Sequence[str], new_names: Mapping[str, str]) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} holds other results: remove it, or choose another folder")
    print(f"run {checkout}", flush=True)
    run_side(source_folder(checkout), folder.resolve(), names, new_names)


if __name__ == "__main__":
    sys.exit(main())
