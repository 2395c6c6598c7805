"""Does a cascade beat either of its stages? On a phantom that is larger than the patch, over several seeds.

Small balls lie in a cube. Those in the half beside a bright plate are class 1, those in the other half, beside a dark
plate, class 2: only a network that sees the plates can tell. A patch at full resolution mostly does not, and at low
resolution the balls lose their shape.

python benchmarks/cascade.py --folder /tmp/cascade --seeds 0,1,2 --epochs 16
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from decathlete.core.choices import Configuration
from decathlete.core.files import write_json
from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelSet
from decathlete.core.rng import stream
from decathlete.dataset.layouts import ManifestContent, decathlon_manifest
from decathlete.io.images import write_image, write_label
from decathlete.planning.options import PlanOptions
from decathlete.training.config import TrainConfig
from decathlete.workflows.cross_validate import cross_validate
from decathlete.workflows.fold import PipelineOptions
from decathlete.workflows.run import run
from decathlete.workflows.train import train_config
from decathlete.workflows.workspace import Workspace

EDGE, PLATE, PATCH = 48, 8, 16
GAP = 4
"""Distance of the balls' centres from the middle, at least, voxels: at low resolution, too, each is on one side."""
N_CASES, N_BALLS = 8, 10


def make_sides(folder: Path, *, seed: int) -> Path:
    """Write the phantom dataset."""
    names = [f"sides_{i:02d}" for i in range(N_CASES)]
    geometry = Geometry.plain((EDGE,) * 3, spacing_ZYX=(1.0, 1.0, 1.0))
    for name in names:
        random = stream(seed, "sides", name)
        label_ZYX = _balls(random)
        image_ZYX = random.normal(0, 0.3, label_ZYX.shape) + 2 * (label_ZYX > 0) + 10
        image_ZYX[:PLATE] += 4
        image_ZYX[-PLATE:] -= 4
        write_image(folder / "imagesTr" / f"{name}.nii.gz", image_ZYX[None].astype(np.float32), geometry)
        write_label(folder / "labelsTr" / f"{name}.nii.gz", label_ZYX, geometry)
    content = ManifestContent(
        name="Sides",
        channels=["MRI"],
        labels=LabelSet.from_names(["bright side", "dark side"]),
        training=names,
        test=[],
        suffix=".nii.gz",
    )
    write_json(folder / "dataset.json", decathlon_manifest(content))
    return folder


def _balls(random: np.random.Generator) -> np.ndarray:
    label_ZYX = np.zeros((EDGE,) * 3, np.uint8)
    places = np.indices(label_ZYX.shape)
    for _ in range(N_BALLS):
        side = random.choice([-1, 1])
        z = EDGE / 2 + side * random.uniform(GAP, EDGE / 2 - PLATE - 4)
        centre = np.array([z, *random.uniform(4, EDGE - 4, 2)]).round()
        radius = random.uniform(2.6, 3.6)
        inside = sum((places[a] - centre[a]) ** 2 for a in range(3)) <= radius**2
        label_ZYX[inside] = 1 if centre[0] < EDGE / 2 else 2
    return label_ZYX


def config(epochs: int, seed: int) -> TrainConfig:
    """Return a training of ``epochs`` times 50 steps, without augmentation but the corruption of masks."""
    return train_config(
        epochs=epochs, steps_per_epoch=50, val_every=epochs, val_cases=1, augment=False, device="cpu", seed=seed
    )


def dice_of_configurations(folder: Path, *, seed: int, epochs: int) -> dict[Configuration, float]:
    """Return the mean Dice of the held-out cases of fold 0, of each configuration."""
    make_sides(folder / "data" / "Sides", seed=seed)
    options: PipelineOptions = {
        "workspace": Workspace(data=folder / "data", prepared=folder / "prepared", results=folder / "results"),
        "plan_options": PlanOptions(
            overrides=(f"patch_size={PATCH},{PATCH},{PATCH}", "batch_size=2"), filters=(8, 16, 32), n_folds=2
        ),
        "config": config(epochs, seed),
        "workers": 1,
    }
    cross_validate("Sides", configuration="3d_lowres", **options)
    dice: dict[Configuration, float] = {}
    for name in ("3d_lowres", "3d", "3d_cascade"):
        scores = run("Sides", configuration=name, fold=0, **options).scores
        value = None if scores is None else scores.headline.values["dice"]
        dice[name] = 0.0 if value is None else value
    return dice


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="of data and results")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=16, help="of 50 steps, of each training")
    given = parser.parse_args(arguments)
    print("| seed | 3d_lowres | 3d | 3d_cascade |\n|---|---|---|---|")
    for seed in map(int, given.seeds.split(",")):
        dice = dice_of_configurations(given.folder / f"seed_{seed}", seed=seed, epochs=given.epochs)
        print(f"| {seed} | " + " | ".join(f"{dice[name]:.3f}" for name in dice) + " |", flush=True)


if __name__ == "__main__":
    main()
