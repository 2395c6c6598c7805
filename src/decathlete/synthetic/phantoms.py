"""Small synthetic datasets, written as files, for tests and examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decathlete.core.choices import DatasetLayout
from decathlete.core.files import write_json
from decathlete.core.geometry import Geometry, Shape, Triple
from decathlete.core.labels import LabelSet
from decathlete.core.rng import stream
from decathlete.dataset.layouts import ManifestContent, decathlon_manifest, nnunet_manifest
from decathlete.io.images import write_image, write_label


def make_phantoms(
    folder: Path,
    *,
    n_cases: int = 6,
    n_test: int = 0,
    shape_ZYX: Shape = (24, 28, 20),
    spacing_ZYX: Triple = (1.0, 1.0, 1.0),
    n_channels: int = 1,
    n_classes: int = 2,
    layout: DatasetLayout = "decathlon",
    channel: str = "MRI",
    cases_per_patient: int = 1,
    oblique: bool = False,
    noise: float = 0.1,
    suffix: str = ".nii.gz",
    seed: int = 0,
) -> Path:
    """Write a dataset that a network learns within seconds: bright ellipsoids with one intensity per class, and noise.

    Args:
        n_classes: number of foreground classes; class k has one ellipsoid in every case.
        channel: name of the channel, ``"CT"`` for CT normalisation; several channels are numbered.
        cases_per_patient: more than 1 names cases ``patient001_frame01``, ``patient001_frame02``, ...
        oblique: rotate the axes of every case by a small random angle.
        noise: standard deviation; neighbouring classes differ by 1.
        suffix: suffix of the files in the ``nnunet`` layout.

    Returns:
        ``folder``, which contains ``dataset.json`` and the images.
    """
    names = [_case_name(i, cases_per_patient) for i in range(n_cases + n_test)]
    ending = suffix if layout == "nnunet" else ".nii.gz"
    for index, name in enumerate(names):
        geometry = _grid(shape_ZYX, spacing_ZYX, oblique, seed, index)
        label_ZYX = _ellipsoids(shape_ZYX, n_classes, stream(seed, "phantom shape", index))
        image_CZYX = _intensities(label_ZYX, n_channels, noise, stream(seed, "phantom noise", index))
        part = "Tr" if index < n_cases else "Ts"
        _write_image(folder / f"images{part}", name, image_CZYX, geometry, layout, ending)
        if part == "Tr":
            write_label(folder / "labelsTr" / f"{name}{ending}", label_ZYX, geometry)
    content = ManifestContent(
        name="Phantoms",
        channels=[channel if n_channels == 1 else f"{channel}{c}" for c in range(n_channels)],
        labels=LabelSet.from_names([f"blob {k}" for k in range(1, n_classes + 1)]),
        training=names[:n_cases],
        test=names[n_cases:],
        suffix=ending,
    )
    manifest = nnunet_manifest(content) if layout == "nnunet" else decathlon_manifest(content)
    write_json(folder / "dataset.json", manifest)
    return folder


def _case_name(index: int, cases_per_patient: int) -> str:
    if cases_per_patient == 1:
        return f"phantom_{index:03d}"
    patient, frame = divmod(index, cases_per_patient)
    return f"patient{patient + 1:03d}_frame{frame + 1:02d}"


def _grid(shape_ZYX: Shape, spacing_ZYX: Triple, oblique: bool, seed: int, index: int) -> Geometry:
    matrix = Geometry.plain(shape_ZYX, spacing_ZYX=spacing_ZYX).matrix
    rng = stream(seed, "phantom grid", index)
    if oblique:
        a, b = rng.uniform(-0.3, 0.3, 2)
        around_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        around_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
        matrix[:3, :3] = around_z @ around_x @ matrix[:3, :3]
    matrix[:3, 3] = rng.uniform(-50, 50, 3)
    return Geometry.from_matrix(shape_ZYX, matrix)


def _ellipsoids(shape_ZYX: Shape, n_classes: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one ellipsoid per class, ordered along the longest axis: positions can be learned, and none is hidden."""
    label_ZYX = np.zeros(shape_ZYX, np.uint8)
    size = np.array(shape_ZYX)
    longest = int(size.argmax())
    places = np.indices(shape_ZYX)
    for k in range(1, n_classes + 1):
        centre = size * rng.uniform(0.42, 0.58, 3) - 0.5
        centre[longest] = size[longest] * (k - 0.5 + rng.uniform(-0.1, 0.1)) / n_classes - 0.5
        radius = size * rng.uniform(0.22, 0.3, 3)
        radius[longest] = size[longest] * rng.uniform(0.3, 0.42) / n_classes
        centre, radius = np.round(centre), np.maximum(radius, 0.6)
        distance = sum(((places[a] - centre[a]) / radius[a]) ** 2 for a in range(3))
        label_ZYX[distance <= 1] = k
    return label_ZYX


def _intensities(
    label_ZYX: NDArray[np.uint8], n_channels: int, noise: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return intensities: 1 + k for class k (reversed in odd channels), noise, and a random scale of the case."""
    n_classes = int(label_ZYX.max())
    channels = []
    for c in range(n_channels):
        level = np.arange(n_classes + 1) if c % 2 == 0 else np.r_[0, np.arange(n_classes, 0, -1)]
        channels.append(1 + level[label_ZYX] + noise * rng.standard_normal(label_ZYX.shape))
    return (np.stack(channels) * rng.uniform(90, 110)).astype(np.float32)


def _write_image(
    folder: Path, name: str, image_CZYX: NDArray[np.float32], geometry: Geometry, layout: str, ending: str
) -> None:
    if layout == "decathlon":
        write_image(folder / f"{name}{ending}", image_CZYX, geometry)
        return
    for c, channel_ZYX in enumerate(image_CZYX):
        write_image(folder / f"{name}_{c:04d}{ending}", channel_ZYX[None], geometry)
