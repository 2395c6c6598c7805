"""What the JSON beside a prediction says: from what, by what and how it was made, and how large things are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from decathlete.core.choices import Blend
from decathlete.core.files import file_digest, value_digest
from decathlete.core.geometry import Geometry
from decathlete.core.labels import LabelSet
from decathlete.core.schema import Schema
from decathlete.version import __version__

NOTICE = "Research use only. Not a medical device."


class ModelUse(Schema):
    """One model of a prediction, and what computed it.

    Attributes:
        digest: of the model bundle.
        engine: runtime, e.g. ``"torch"``.
    """

    digest: str
    dataset: str
    dims: Literal[2, 3]
    weights: str
    engine: str
    precision: str


class Settings(Schema):
    """All that decides a prediction beside its input: equal settings and inputs give equal predictions.

    Attributes:
        tta: flips along the axes that training mirrored.
        overlap: part of the patch that neighbouring windows share.
    """

    models: tuple[ModelUse, ...]
    tta: bool
    overlap: float
    blend: Blend


class PredictionRecord(Schema):
    """The JSON beside a prediction.

    Attributes:
        inputs: names of the files, without their folders.
        inputs_digest: of the files' bytes.
        label: name of the label map's file; ``label_digest`` is its SHA-256, so that a file changed since is noticed.
        decathlete: the version that made it.
        volumes_ml: class (or region) -> volume, mL.
        warnings: where the input left what the model was trained on.
        seconds: from the prepared image to the finished label map.
    """

    version: Literal[1] = 1
    notice: str = NOTICE
    case_id: str
    inputs: tuple[str, ...]
    inputs_digest: str
    label: str
    label_digest: str
    probabilities: str | None = None
    decathlete: str = __version__
    settings: Settings
    device: str
    volumes_ml: dict[str, float]
    warnings: tuple[str, ...]
    seconds: float


def inputs_digest(paths: Sequence[Path]) -> str:
    """Of the bytes of the files, in order; a folder (DICOM) counts as its files by name."""
    return value_digest([_path_digest(path) for path in paths])


def _path_digest(path: Path) -> str | list[list[str]]:
    if not path.is_dir():
        return file_digest(path)
    return [[file.name, file_digest(file)] for file in sorted(path.iterdir()) if file.is_file()]


def volumes_ml(label_ZYX: NDArray[Any], geometry: Geometry, labels: LabelSet) -> dict[str, float]:
    """Return the volume of each structure (region, or foreground class), mL.

    Args:
        label_ZYX: file values on the grid of ``geometry``.
    """
    voxels: Counter[int] = Counter()
    for plane_YX in label_ZYX:  # plane by plane: a copy of the volume would be sorted
        present, counts = np.unique(plane_YX, return_counts=True)
        voxels.update(dict(zip(present.tolist(), counts.tolist(), strict=True)))
    millilitres = geometry.voxel_volume_mm3 / 1000
    return {s.name: round(sum(voxels[v] for v in s.values) * millilitres, 6) for s in labels.structures}
