"""A small cohort of synthetic brain MRI for the demo, made from the MNI152 template in nilearn.

Every case is made from the template's tissue maps with its own affine and elastic deformation, contrast, bias field and
noise, so that no threshold separates the tissues, but their shape and position do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from decathlete.core.extras import import_optional
from decathlete.core.files import remove_partials, write_json
from decathlete.core.geometry import Geometry, Shape
from decathlete.core.labels import LabelSet
from decathlete.core.progress import CaseProgress
from decathlete.core.rng import stream
from decathlete.dataset.layouts import ManifestContent, decathlon_manifest
from decathlete.io.images import write_image, write_label

Volume = NDArray[np.float32]
CLASSES = ["rest", "grey matter", "white matter"]


@dataclass(frozen=True, kw_only=True)
class CohortOptions:
    """Options of the cohort.

    Attributes:
        spacing_mm: spacing of the isotropic grid.
        rotation_deg, scale, shift_mm: greatest rotation, scaling and translation.
        elastic_mm: standard deviation of the smooth displacement.
        bias: standard deviation of the logarithm of the bias field.
        noise: standard deviation of the noise, relative to the intensity of white matter.
    """

    n_train: int = 15
    n_test: int = 3
    spacing_mm: int = 3
    rotation_deg: float = 10.0
    scale: float = 0.08
    shift_mm: float = 6.0
    elastic_mm: float = 3.0
    bias: float = 0.25
    noise: float = 0.06
    seed: int = 4


@dataclass(frozen=True, kw_only=True)
class Template:
    """The MNI152 brain: intensity and tissue probabilities (0..1), Z, Y, X, on one grid."""

    intensity_ZYX: Volume
    grey_ZYX: Volume
    white_ZYX: Volume
    geometry: Geometry


def load_template(spacing_mm: int) -> Template:
    """Load the template from the nilearn package, without a download.

    Raises:
        MissingPackageError: nilearn is not installed.
    """
    datasets = import_optional("nilearn.datasets", title="nilearn", extra="demo")
    parts = [
        load(resolution=spacing_mm)
        for load in (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    ]
    affine = np.asarray(parts[0].affine)[:, [2, 1, 0, 3]]
    arrays: list[Volume] = [np.ascontiguousarray(p.get_fdata(dtype=np.float32).T) for p in parts]
    intensity, grey, white = arrays
    return Template(
        intensity_ZYX=np.asarray(intensity / intensity.max(), np.float32),
        grey_ZYX=np.clip(grey, 0, 1),
        white_ZYX=np.clip(white, 0, 1),
        geometry=Geometry.from_matrix((intensity.shape[0], intensity.shape[1], intensity.shape[2]), affine),
    )


def make_brain_cohort(
    folder: Path,
    options: CohortOptions = CohortOptions(),
    *,
    progress: CaseProgress | None = None,
) -> Path:
    """Write the cohort in Decathlon layout to ``folder`` and return the folder; an existing cohort is kept."""
    if (folder / "dataset.json").is_file():
        return folder
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        remove_partials(folder / part)
    template = load_template(options.spacing_mm)
    total = options.n_train + options.n_test
    names = [f"brain_{i + 1:02d}" for i in range(total)]
    for i, name in enumerate(names):
        image_ZYX, label_ZYX = make_brain(template, options, index=i)
        part = "Tr" if i < options.n_train else "Ts"
        write_image(folder / f"images{part}" / f"{name}.nii.gz", image_ZYX[None], template.geometry)
        if part == "Tr":
            write_label(folder / "labelsTr" / f"{name}.nii.gz", label_ZYX, template.geometry)
        if progress:
            progress(i + 1, total, name)
    # The manifest is written last: it marks the cohort as complete.
    write_json(folder / "dataset.json", _manifest(names[: options.n_train], names[options.n_train :]))
    return folder


def _manifest(training: list[str], test: list[str]) -> dict[str, object]:
    texts = {
        "description": "Synthetic brain MRI: the MNI152 tissue maps deformed, with bias field and noise",
        "reference": "MNI152 2009c (ICBM), through nilearn",
        "licence": "see the ICBM 152 template's terms",
    }
    background, *foreground = CLASSES
    labels = LabelSet.from_names(foreground, background=background)
    return decathlon_manifest(
        ManifestContent(name="Brain demo", channels=["MRI"], labels=labels, training=training, test=test, texts=texts)
    )


def make_brain(template: Template, options: CohortOptions, *, index: int) -> tuple[Volume, NDArray[np.uint8]]:
    """Make one case: image (float32, arbitrary units) and label (0 rest, 1 grey, 2 white), Z, Y, X."""
    rng = stream(options.seed, "brain", index)
    source = _deformation(template.geometry.shape_ZYX, options, rng)
    intensity, grey, white = (
        ndimage.map_coordinates(v, source, order=1, mode="constant").astype(np.float32)
        for v in (template.intensity_ZYX, template.grey_ZYX, template.white_ZYX)
    )
    rest = 1 - grey - white
    label = np.argmax(np.stack([rest, grey, white]), axis=0).astype(np.uint8)
    return _scan(intensity, options, rng), label


def _deformation(shape: Shape, options: CohortOptions, rng: np.random.Generator) -> Volume:
    """Return the source position of each voxel, voxels (3, Z, Y, X): an affine map and a smooth displacement."""
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij"))
    centre = (np.array(shape, np.float32).reshape(3, 1, 1, 1) - 1) / 2
    angles = np.radians(rng.uniform(-options.rotation_deg, options.rotation_deg, 3))
    matrix = _rotation(angles) * (1 + rng.uniform(-options.scale, options.scale, (1, 3)))
    shift = rng.uniform(-options.shift_mm, options.shift_mm, (3, 1, 1, 1)) / options.spacing_mm
    moved = np.einsum("ij,jzyx->izyx", matrix, grid - centre) + centre + shift
    amplitude = options.elastic_mm / options.spacing_mm
    displacement = np.stack([smooth_field(shape, 24 / options.spacing_mm, rng) for _ in range(3)])
    return np.asarray(moved + amplitude * displacement, dtype=np.float32)


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = [a for a in range(3) if a != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def smooth_field(shape: Shape, sigma: float, rng: np.random.Generator) -> Volume:
    """Return a Gaussian random field of unit standard deviation."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return np.asarray(field / field.std(), dtype=np.float32)


def _scan(intensity: Volume, options: CohortOptions, rng: np.random.Generator) -> Volume:
    """Simulate the image of a scanner: contrast, bias field and Rician noise."""
    contrast = intensity ** rng.uniform(0.7, 1.4)
    bias = np.exp(options.bias * smooth_field(intensity.shape, 40 / options.spacing_mm, rng))
    clean = contrast * bias
    real = clean + options.noise * rng.standard_normal(clean.shape, dtype=np.float32)
    imaginary = options.noise * rng.standard_normal(clean.shape, dtype=np.float32)
    gain = 10 ** rng.uniform(1.5, 3.5)
    return np.asarray(gain * np.hypot(real, imaginary), dtype=np.float32)
