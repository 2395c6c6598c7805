"""Made-up datasets of any size, slice by slice: ten thousand cases in seconds, a large scan in little memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from common.models import random_model
from decathlete.core.files import write_json
from decathlete.core.labels import LabelSet
from decathlete.dataset.layouts import ManifestContent, decathlon_manifest

CELLS = 6
"""Boxes along each axis, one class after the other: 216, so that 117 classes all occur."""
COMPANION = (32, 32, 32)
"""Shape of two cases beside a single one: folds need several, and their spacing makes it be resampled."""
COMPANION_SPACING = 1.25


def make_data(folder: Path, *, cases: int, shape_ZYX: tuple[int, int, int], classes: int, patch: list[int]) -> None:
    """Write ``dataset``, ``images`` (to predict) and ``model``; beside a single case the dataset has two small ones.

    Images differ from each other, and hold all classes where they have the voxels for it.
    """
    dataset = folder / "dataset"
    for kind in ("imagesTr", "labelsTr"):
        (dataset / kind).mkdir(parents=True)
    names = [f"made_up_{i:05d}" for i in range(cases)]
    for i, name in enumerate(names):
        write_case(dataset, name, shape_ZYX, classes, spacing=1.0, seed=i)
    companions = ["companion_0", "companion_1"] if cases == 1 else []
    for i, name in enumerate(companions):
        write_case(dataset, name, COMPANION, classes, spacing=COMPANION_SPACING, seed=cases + i)
    labels = LabelSet.from_names([f"class {i}" for i in range(1, classes)])
    training = [*names, *companions]
    content = ManifestContent(name="MadeUp", channels=["CT"], labels=labels, training=training, suffix=".nii")
    write_json(dataset / "dataset.json", decathlon_manifest(content))
    images = folder / "images"
    images.mkdir()
    for name in names:
        (images / f"{name}.nii").symlink_to(dataset / "imagesTr" / f"{name}.nii")
    spacing = COMPANION_SPACING if companions else 1.0
    z, y, x = patch
    random_model(folder / "model", classes=classes, patch=(z, y, x), spacing=(spacing,) * 3)


def write_case(
    dataset: Path, name: str, shape_ZYX: tuple[int, int, int], classes: int, *, spacing: float, seed: int
) -> None:
    """Image (int16) and label map (uint8): boxes of one class each, 40 HU apart, in noise that moves with the slice."""
    depth, height, width = shape_ZYX
    rng = np.random.default_rng(seed)
    noise_YX = rng.integers(-100, 100, (height, width), dtype=np.int16)
    z, y, x = (np.arange(n) * CELLS // n for n in shape_ZYX)
    with (
        (dataset / "imagesTr" / f"{name}.nii").open("wb") as image,
        (dataset / "labelsTr" / f"{name}.nii").open("wb") as label,
    ):
        image.write(_header(shape_ZYX, spacing, np.int16))
        label.write(_header(shape_ZYX, spacing, np.uint8))
        for plane in range(depth):
            cells_YX = (z[plane] * CELLS + y[:, None]) * CELLS + x[None]
            label_YX = (cells_YX % classes).astype(np.uint8)
            image.write((40 * label_YX.astype(np.int16) + np.roll(noise_YX, 7 * plane) + np.int16(1)).tobytes())
            label.write(label_YX.tobytes())


def _header(shape_ZYX: tuple[int, int, int], spacing: float, dtype: Any) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape_ZYX[::-1])
    affine: NDArray[np.float64] = np.diag([spacing, spacing, spacing, 1.0])
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    header.set_xyzt_units("mm")
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header.set_slope_inter(1, 0)
    return bytes(header.binaryblock) + bytes(4)
