"""Make the files beside this script: what Decathlete wrote before its schemas got a version 2.

They were made once, by the code of commit 3bb6fa4. Do not make them again by later code:

    git archive 3bb6fa4 src | tar x -C OLD
    PYTHONPATH=OLD/src python tests/reference/golden/v1/make.py

Everything is as the program wrote it, but ``run.json`` and ``source.json`` name ``/study`` instead of the temporary
folder in which this script ran. The digest of a dataset depends on the modification times of its files, which Git does
not keep: set :data:`MODIFIED` on a copy before you use it.

=====================================  =================================================================================
data/Task07_Blobs                      raw CT images: thick slices, spacings that vary, classes
data/Task08_Pair                       raw images of two channels, oblique
prepared/Task07_Blobs                  the fingerprint, the stores of 2D and 3D
stopped/Task07_Blobs/3d/fold_0         a run that a signal stopped, with its checkpoint
results/classes/Task07_Blobs/3d        the same run, resumed to its end, validated
results/classes/Task07_Blobs/2d        two folds, cross-validated, with their last checkpoints
results/regions                        a model of regions, with batch norm
results/residual                       a model with a residual encoder and a patch smaller than the images
models/two_networks                    a bundle of two networks: the two 2D folds
predictions/NAME                       what :data:`PREDICTIONS` gives of a dataset's test images
probabilities.npz                      of the same, ``NAME/CASE``: every second voxel along each axis, float32
=====================================  =================================================================================
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
MODIFIED = 1_700_000_000
"""Modification time of raw files, seconds since 1970."""

MACHINE = ("--device", "cpu", "--precision", "fp32")
EPOCH, EPOCH_2D = ("--steps-per-epoch", "25"), ("--steps-per-epoch", "80")
RUN = ("--epochs", "3", "--ema-decay", "0.9", "--seed", "3", "--logger", "none", *MACHINE, "--readers", "1")
STOP_AT = 40
"""Step of the 75 at which the 3D run is stopped: within its second epoch."""

FOLD_2D = "results/classes/Task07_Blobs/2d/fold_{}"
FOLD_3D = "results/classes/Task07_Blobs/3d/fold_0"
REGIONS = "results/regions/Task08_Pair/3d/fold_0"
RESIDUAL = "results/residual/Task08_Pair/3d/fold_0"
PREDICTIONS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "2d": ("Task07_Blobs", (FOLD_2D.format(0),), ()),
    "3d": ("Task07_Blobs", (FOLD_3D,), ()),
    "3d_tta": ("Task07_Blobs", (FOLD_3D,), ("--tta",)),
    "folds": ("Task07_Blobs", (FOLD_2D.format(0), FOLD_2D.format(1)), ()),
    "two_networks": ("Task07_Blobs", ("models/two_networks",), ()),
    "2d_and_3d": ("Task07_Blobs", (FOLD_2D.format(0), FOLD_3D), ()),
    "regions": ("Task08_Pair", (REGIONS,), ()),
    "residual": ("Task08_Pair", (RESIDUAL,), ()),
}
"""Name -> dataset, models, options."""


def make_data(root: Path) -> None:
    """Write both datasets; some cases have other spacings and shapes than the rest."""
    from decathlete.dataset.phantoms import make_phantoms

    blobs = root / "Task07_Blobs"
    make_phantoms(blobs, n_cases=4, n_test=2, shape_ZYX=(10, 24, 22), spacing_ZYX=(2.5, 1.0, 1.0), channel="CT",
                  noise=0.3, seed=1)  # fmt: skip
    other = make_phantoms(root / "other", n_cases=4, n_test=2, shape_ZYX=(8, 20, 23), spacing_ZYX=(3.1, 1.23, 0.94),
                          channel="CT", oblique=True, noise=0.3, seed=2)  # fmt: skip
    for name in ("imagesTr/phantom_003", "labelsTr/phantom_003", "imagesTs/phantom_005"):
        shutil.copy(other / f"{name}.nii.gz", blobs / f"{name}.nii.gz")
    shutil.rmtree(other)
    make_phantoms(root / "Task08_Pair", n_cases=3, n_test=1, shape_ZYX=(16, 18, 16), spacing_ZYX=(1.4, 1.4, 1.4),
                  n_channels=2, oblique=True, noise=0.3, seed=3)  # fmt: skip
    for path in root.rglob("*"):
        os.utime(path, (MODIFIED, MODIFIED))


def decathlete(*arguments: str) -> None:
    """Run the command line, on one thread."""
    subprocess.run(
        [sys.executable, "-m", "decathlete", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


class StopAt:
    """Progress that sends this process SIGTERM after a step."""

    def on_step(self, step: int, progress: float) -> None:
        if step == STOP_AT:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_epoch(self, record: object) -> None:
        pass


def begin_3d(folder: str) -> None:
    """Begin the 3D run with the settings of :data:`RUN` and :data:`EPOCH`, and stop it at :data:`STOP_AT`."""
    import decathlete as package
    from decathlete.errors import Interrupted

    config = package.train_config(epochs=3, steps_per_epoch=25, ema_decay=0.9, seed=3, logger="none", device="cpu",
                                  precision="fp32", readers=1)  # fmt: skip
    try:
        package.train("7", workspace=package.Workspace(results=Path(folder)), config=config, progress=StopAt())
    except Interrupted:
        return
    raise SystemExit("the run was not stopped")


def train() -> None:
    """Prepare, train and validate in the current folder."""
    network = ("--filters", "4,8,16", "--set", "batch_size=2", "--n-folds", "2")
    mirrored = ("--set", "mirror_axes=0,1,2")
    decathlete("preprocess", "--task", "7", "--dim", "3", *network, *mirrored)
    subprocess.run(
        [sys.executable, __file__, "begin", "stopped"], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    shutil.copytree("stopped", "results/classes")
    decathlete("train", "--task", "7", "--dim", "3", *RUN, *EPOCH, "--results", "results/classes", "--resume")
    decathlete("validate", "--model", FOLD_3D, *MACHINE)
    decathlete("validate", "--model", FOLD_3D, *MACHINE, "--grid", "prepared")
    network_2d = ("--filters", "4,8,16", "--set", "batch_size=6", "--n-folds", "2", "--set", "mirror_axes=0,1")
    decathlete("run", "7", "--dim", "2", *RUN, *EPOCH_2D, *network_2d, "--folds", "0-1", "--results", "results/classes")
    other = ("--n-folds", "3", "--filters", "4,8,16", "--batch-size", "2")
    decathlete("run", "8", *RUN, *EPOCH, *other, "--norm", "batch", "--regions", "any=1,2;second=2",
               "--regions-order", "1,2", "--prepared", "prepared_regions", "--results", "results/regions")  # fmt: skip
    decathlete("run", "8", *RUN, *EPOCH, *other, "--block", "residual", "--min-fmap", "2",
               "--set", "patch_size=12,12,12", "--prepared", "prepared_residual",
               "--results", "results/residual")  # fmt: skip


def join_networks(folder: Path) -> None:
    """Save the two 2D folds as one bundle of two networks."""
    from decathlete.networks.bundle import ModelBundle

    folds = [ModelBundle.load(Path(FOLD_2D.format(fold))) for fold in (0, 1)]
    record = folds[0].record.revised(networks=2, weights_sha256="")
    ModelBundle.save(folder, [fold.build().state_dict() for fold in folds], record)


def predict(name: str) -> dict[str, Any]:
    """Predict test images into ``predictions/NAME``; probabilities of every second voxel, ``NAME/CASE``."""
    from decathlete import Predictor

    dataset, models, options = PREDICTIONS[name]
    images = Path("data") / dataset / "imagesTs"
    model_options = [text for model in models for text in ("--model", model)]
    decathlete("predict", *model_options, *options, *MACHINE, "-i", str(images), "-o", f"predictions/{name}")
    predictor = Predictor.load(models, device="cpu", precision="fp32", engine="torch", tta="--tta" in options)
    found = {}
    for path in sorted(images.glob("*.nii.gz")):
        probabilities_KZYX = predictor.predict(path, probabilities=True).probabilities_KZYX
        found[f"{name}/{path.name.removesuffix('.nii.gz')}"] = probabilities_KZYX[:, ::2, ::2, ::2]
        ordered = np.sort(probabilities_KZYX, axis=0)
        regions = predictor.labels.regions
        margin = np.abs(probabilities_KZYX - 0.5) if regions else ordered[-1] - ordered[-2]
        sys.stdout.write(f"{name}/{path.name}: smallest margin {margin.min():.1e}\n")
    return found


def collect(work: Path) -> None:
    """Copy what is kept, without pages and spare checkpoints, and without the name of the folder ``work``."""
    for name in ("data", "prepared", "stopped", "results", "models", "predictions"):
        shutil.rmtree(HERE / name, ignore_errors=True)
        shutil.copytree(name, HERE / name, ignore=shutil.ignore_patterns("*.html", "model_best"))
    for folder in (*(HERE / "results").glob("*/*/3d/fold_0/checkpoints"), *(HERE / "results").rglob("predictions*")):
        shutil.rmtree(folder)
    for best in (HERE / "results").rglob("best.ckpt"):
        best.unlink()
    for path in HERE.rglob("*.json"):
        text = path.read_text()
        if str(work) in text:
            path.write_text(text.replace(str(work), "/study"))
            sys.stdout.write(f"/study replaces the temporary folder in {path.relative_to(HERE)}\n")


def main() -> None:
    """Make everything in a temporary folder, then copy it here."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary).resolve()
        os.chdir(work)
        make_data(Path("data"))
        train()
        join_networks(Path("models/two_networks"))
        probabilities = {key: array for name in PREDICTIONS for key, array in predict(name).items()}
        np.savez_compressed(HERE / "probabilities.npz", **probabilities)
        collect(work)


if __name__ == "__main__":
    begin_3d(sys.argv[2]) if sys.argv[1:2] == ["begin"] else main()
