"""From the command to the result for one tiny case, and for each further one: commands as users run them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from workload import Contender, Measured, Work, Workload
from workloads._nnunet import first_cases, link_raw, make_model, make_plans, set_folders


def prepare(work: Work, folder: Path) -> None:
    """One case and several, in folders of their own, and nnU-Net's model with random weights."""
    dataset = Path(work["data"]) / work["dataset"]
    for name, n in (("one", 1), ("several", 1 + work["further"])):
        (folder / name).mkdir()
        for case in first_cases(dataset, n):
            (folder / name / case.replace(".nii.gz", "_0000.nii.gz")).symlink_to(dataset / "imagesTr" / case)
    link_raw(dataset, first_cases(dataset, 5), folder)
    set_folders(folder)
    make_plans(workers=len(os.sched_getaffinity(0)), memory_gb=work["memory_gb"])
    make_model(folder, "3d_fullres").rename(folder / "model")


def ours(work: Work, folder: Path) -> Measured:
    if not (folder / "bundle").exists():
        command = [sys.executable, "-m", "decathlete", "import", "nnunet", folder / "model"]
        subprocess.run([*command, "--output", folder / "bundle"], check=True, capture_output=True)
    start = [sys.executable, "-m", "decathlete", "predict", "--model", folder / "bundle"]
    return _measure(work, folder, lambda images, output: [*start, "--input", images, "--output", output])


def nnunet(work: Work, folder: Path) -> Measured:
    start = [Path(sys.executable).parent / "nnUNetv2_predict_from_modelfolder", "-m", folder / "model", "-f", "0"]
    options = ["-device", "cpu", "--disable_tta", "-npp", "1", "-nps", "1"]
    return _measure(work, folder, lambda images, output: [*start, *options, "-i", images, "-o", output])


def _measure(work: Work, folder: Path, command: Callable[[Path, Path], list[str | Path]]) -> Measured:
    """Seconds for one case; the further cases' share of a longer run."""
    seconds = {}
    for name in ("one", "several"):
        output = folder / "output"
        shutil.rmtree(output, ignore_errors=True)
        began = time.perf_counter()
        subprocess.run(command(folder / name, output), check=True, capture_output=True)
        seconds[name] = time.perf_counter() - began
    return Measured(
        amounts=(seconds["one"],),
        notes={"s for each further case": (seconds["several"] - seconds["one"]) / work["further"]},
    )


WORKLOAD = Workload(
    name="tiny",
    title="One tiny case, from the command to its result",
    unit="s",
    lower_is_better=True,
    sizes={
        "small": {"dataset": "Task04_Hippocampus", "further": 2, "memory_gb": 0.5},
        "full": {"dataset": "Task04_Hippocampus", "further": 20, "memory_gb": 2},
    },
    contenders=(
        Contender(name="ours", environment="ours", run=ours),
        Contender(name="nnunet", environment="peers", run=nnunet),
    ),
    prepare=prepare,
    prepare_in="peers",
)
