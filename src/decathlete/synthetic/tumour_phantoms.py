"""Synthetic gliomas like those of BraTS: four MRI channels and three nested labels.

The brain is an ellipsoid on a background of zeros. It contains one tumour: oedema around a core whose rim is enhanced
by contrast medium. No channel shows all three parts: FLAIR shows the whole tumour, T1 with gadolinium the enhancing
rim, T1 and T2 together the rest of the core.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decathlete.core.files import write_json
from decathlete.core.geometry import Geometry, Shape, Triple
from decathlete.core.labels import LabelSet
from decathlete.core.rng import stream
from decathlete.dataset.layouts import ManifestContent, decathlon_manifest
from decathlete.io.images import write_image, write_label
from decathlete.synthetic.brain_cohort import smooth_field

CHANNELS = ["FLAIR", "T1w", "T1gd", "T2w"]
CLASSES = ["oedema", "non-enhancing tumour", "enhancing tumour"]
"""The classes of the Decathlon's Task 01, in the order of their values."""

_CONTRAST_CK = np.array(
    [[1.0, 1.7, 1.45, 1.6], [1.0, 0.9, 0.75, 0.85], [1.0, 0.9, 0.8, 1.6], [1.0, 1.5, 1.8, 1.5]], dtype=np.float32
)
"""Intensity of brain, oedema, non-enhancing and enhancing tumour in each channel."""
_ROUGHNESS = 0.12
"""Standard deviation of the distance of a boundary from the centre, relative to the radius."""


def make_tumour_phantoms(
    folder: Path,
    *,
    n_cases: int = 10,
    n_test: int = 0,
    shape_ZYX: Shape = (36, 44, 36),
    spacing_ZYX: Triple = (4.0, 4.0, 4.0),
    noise: float = 0.1,
    bias: float = 0.1,
    seed: int = 0,
) -> Path:
    """Write the cohort in Decathlon layout to ``folder`` and return the folder.

    Args:
        noise: standard deviation, relative to the intensity of healthy brain.
        bias: standard deviation of the logarithm of each channel's bias field.
    """
    names = [f"glioma_{i + 1:02d}" for i in range(n_cases + n_test)]
    geometry = Geometry.plain(shape_ZYX, spacing_ZYX=spacing_ZYX)
    for index, name in enumerate(names):
        image_CZYX, label_ZYX = make_tumour(shape_ZYX, noise=noise, bias=bias, seed=seed, index=index)
        part = "Tr" if index < n_cases else "Ts"
        write_image(folder / f"images{part}" / f"{name}.nii.gz", image_CZYX, geometry)
        if part == "Tr":
            write_label(folder / "labelsTr" / f"{name}.nii.gz", label_ZYX, geometry)
    content = ManifestContent(
        name="Synthetic gliomas",
        channels=CHANNELS,
        labels=LabelSet.from_names(CLASSES),
        training=names[:n_cases],
        test=names[n_cases:],
    )
    write_json(folder / "dataset.json", decathlon_manifest(content))
    return folder


def make_tumour(
    shape_ZYX: Shape, *, noise: float = 0.1, bias: float = 0.1, seed: int = 0, index: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Make one case: image (4 channels, arbitrary units, 0 outside of the brain) and label (0 to 3)."""
    rng = stream(seed, "tumour", index)
    brain_ZYX = _distance(shape_ZYX, np.full(3, 0.5), 0.46 * np.array(shape_ZYX)) <= 1
    label_ZYX = _tumour(shape_ZYX, rng) * brain_ZYX.astype(np.uint8)
    channels = [_scan(levels[label_ZYX], noise, bias, rng) * brain_ZYX for levels in _CONTRAST_CK]
    return np.stack(channels).astype(np.float32), label_ZYX


def _tumour(shape_ZYX: Shape, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw the oedema, the enhancing rim inside of it, and the non-enhancing core inside of the rim."""
    side = rng.choice([-1, 1])
    place = np.array([rng.uniform(0.4, 0.65), rng.uniform(0.35, 0.65), 0.5 + side * rng.uniform(0.14, 0.2)])
    radius = min(shape_ZYX) * rng.uniform(0.2, 0.27) * rng.uniform(0.85, 1.15, 3)
    distance_ZYX = _distance(shape_ZYX, place, radius)
    distance_ZYX *= 1 + _ROUGHNESS * smooth_field(shape_ZYX, min(shape_ZYX) / 12, rng)
    core = rng.uniform(0.62, 0.75)
    label_ZYX = (distance_ZYX <= 1).astype(np.uint8)
    label_ZYX[distance_ZYX <= core] = 3
    label_ZYX[distance_ZYX <= core * rng.uniform(0.5, 0.65)] = 2
    return label_ZYX


def _distance(shape_ZYX: Shape, place: NDArray[np.float64], radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the relative distance from the centre of an ellipsoid: 1 on its surface."""
    places = np.indices(shape_ZYX)
    centre = place * np.array(shape_ZYX) - 0.5
    return np.asarray(np.sqrt(sum(((places[a] - centre[a]) / radius[a]) ** 2 for a in range(3))), np.float64)


def _scan(clean_ZYX: NDArray[np.float32], noise: float, bias: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Add a bias field, Rician noise and a random scale; the result is never 0 inside of the brain."""
    field = np.exp(bias * smooth_field(clean_ZYX.shape, min(clean_ZYX.shape) / 4, rng))
    parts = noise * rng.standard_normal((2, *clean_ZYX.shape), dtype=np.float32)
    return np.asarray(rng.uniform(80, 400) * np.hypot(clean_ZYX * field + parts[0], parts[1]), dtype=np.float32)
