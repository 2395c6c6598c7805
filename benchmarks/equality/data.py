"""Made-up datasets in the Decathlon's layout. They need no part of the package: both checkouts see the same voxels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np


def make_dataset(folder: Path, *, spacings: Sequence[tuple[float, float, float]], channels: Sequence[str]) -> None:
    """Write bright balls (class 1) with a brighter core (class 2) in noise, in the Decathlon's layout.

    Args:
        spacings: one per case, X, Y, Z, mm; the last case has no label map.
    """
    names = [f"case_{i:02d}" for i in range(len(spacings))]
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
    for number, (name, spacing) in enumerate(zip(names, spacings, strict=True)):
        generator = np.random.default_rng(number)
        shape = [round(30 / s) for s in spacing]
        centre_mm = generator.uniform(11, 19, 3)
        places_mm = np.stack(np.indices(shape), -1) * np.array(spacing)
        distance = np.linalg.norm(places_mm - centre_mm, axis=-1)
        label = np.where(distance < 5, 2, np.where(distance < 9, 1, 0)).astype(np.uint8)
        levels = [label * 100.0 + generator.normal(0, 30, shape) for _ in channels]
        image = np.stack(levels, -1).astype(np.float32)
        affine = np.diag([*spacing, 1.0])
        is_test = number == len(names) - 1
        image_path = folder / ("imagesTs" if is_test else "imagesTr") / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(image[..., 0] if len(channels) == 1 else image, affine), image_path)
        if not is_test:
            nibabel.save(nibabel.Nifti1Image(label, affine), folder / "labelsTr" / f"{name}.nii.gz")
    manifest = {
        "name": folder.name,
        "tensorImageSize": "3D" if len(channels) == 1 else "4D",
        "modality": dict(enumerate(channels)),
        "labels": {"0": "background", "1": "shell", "2": "core"},
        "numTraining": len(names) - 1,
        "numTest": 1,
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names[:-1]
        ],
        "test": [f"./imagesTs/{names[-1]}.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(manifest))


def make_data(folder: Path) -> None:
    """Write a dataset of thick slices whose spacing varies, and one of two channels."""
    thick = [(1.0, 1.0, 3.0), (1.0, 1.0, 3.0), (1.1, 1.1, 3.0), (0.9, 0.9, 2.5), (1.0, 1.0, 4.1)]
    make_dataset(folder / "Task01_Thick", spacings=thick, channels=["CT"])
    make_dataset(folder / "Task02_Pair", spacings=[(1.5, 1.5, 1.5)] * 3 + [(1.3, 1.6, 1.5)] * 2, channels=["T1", "T2"])
