"""Small made-up datasets, written as real files: for tests, examples and trying things out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from decathlete.core.files import write_json
from decathlete.core.geometry import Geometry, Shape, Triple
from decathlete.core.rng import stream
from decathlete.dataset.images import write_image, write_label


def make_phantoms(
    folder: Path,
    *,
    n_cases: int = 6,
    n_test: int = 0,
    shape_ZYX: Shape = (24, 28, 20),
    spacing_ZYX: Triple = (1.0, 1.0, 1.0),
    n_channels: int = 1,
    n_classes: int = 2,
    channel: str = "MRI",
    layout: Literal["decathlon", "nnunet"] = "decathlon",
    oblique: bool = False,
    noise: float = 0.3,
    seed: int = 0,
) -> Path:
    """Write a dataset of bright balls in noise, easy to learn, and return its folder.

    Args:
        shape_ZYX: of the first case; the others differ by a voxel or two.
        n_classes: foreground classes; class ``k`` is a ball of intensity about ``k`` above the background.
        oblique: turn every grid by its own angle about z.
        noise: standard deviation; the classes are 1 apart.
    """
    names = [f"phantom_{i:03d}" for i in range(n_cases + n_test)]
    for i, name in enumerate(names):
        rng = stream(seed, "phantom", i)
        z, y, x = (max(1, n + int(rng.integers(-1, 2)) if i and n > 4 else n) for n in shape_ZYX)
        image_CZYX, label_ZYX = _case((z, y, x), n_channels, n_classes, noise, rng)
        geometry = _geometry((z, y, x), spacing_ZYX, float(rng.uniform(-0.5, 0.5)) if oblique else 0.0)
        part = "Tr" if i < n_cases else "Ts"
        if layout == "decathlon":
            write_image(folder / f"images{part}" / f"{name}.nii.gz", image_CZYX, geometry)
        else:
            for c in range(n_channels):
                write_image(folder / f"images{part}" / f"{name}_{c:04d}.nii.gz", image_CZYX[c : c + 1], geometry)
        if part == "Tr":
            write_label(folder / "labelsTr" / f"{name}.nii.gz", label_ZYX, geometry)
    channels = {str(c): channel if n_channels == 1 else f"{channel}{c}" for c in range(n_channels)}
    make = _decathlon_manifest if layout == "decathlon" else _nnunet_manifest
    write_json(folder / "dataset.json", make(names[:n_cases], names[n_cases:], channels, n_classes))
    return folder


def _case(
    shape: Shape, n_channels: int, n_classes: int, noise: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    grid = np.stack(np.meshgrid(*(np.arange(n) / max(n - 1, 1) for n in shape), indexing="ij"))
    label = np.zeros(shape, np.uint8)
    for k in range(1, n_classes + 1):
        centre = np.array([0.5, 0.5, (k - 0.5) / n_classes]) + rng.uniform(-0.08, 0.08, 3)
        radius = np.array([0.3, 0.3, 0.35 / n_classes]) * rng.uniform(0.9, 1.1)
        inside = (((grid - centre.reshape(3, 1, 1, 1)) / radius.reshape(3, 1, 1, 1)) ** 2).sum(axis=0) <= 1
        label[inside] = k
    signal = label + 1.0
    channels = [(signal * (1 + 0.5 * c) + rng.normal(0, noise, shape)) * 100 for c in range(n_channels)]
    return np.stack(channels).astype(np.float32), label


def _geometry(shape: Shape, spacing: Triple, angle: float) -> Geometry:
    matrix = Geometry.plain(shape, spacing).matrix
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix = turn @ matrix
    matrix[:3, 3] = (-10.0, 5.0, 20.0)
    return Geometry.from_matrix(shape, matrix)


def _decathlon_manifest(
    training: list[str], test: list[str], channels: dict[str, str], n_classes: int
) -> dict[str, object]:
    labels = {"0": "background"} | {str(k): f"ball {k}" for k in range(1, n_classes + 1)}
    return {
        "name": "Phantoms",
        "modality": channels,
        "labels": labels,
        "numTraining": len(training),
        "numTest": len(test),
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in training],
        "test": [f"./imagesTs/{n}.nii.gz" for n in test],
    }


def _nnunet_manifest(
    training: list[str],
    test: list[str],  # noqa: ARG001 - nnU-Net v2 lists no cases, it looks into the folders
    channels: dict[str, str],
    n_classes: int,
) -> dict[str, object]:
    return {
        "channel_names": channels,
        "labels": {"background": 0} | {f"ball {k}": k for k in range(1, n_classes + 1)},
        "numTraining": len(training),
        "file_ending": ".nii.gz",
    }
