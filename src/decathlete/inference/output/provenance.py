"""The JSON beside a prediction: inputs, models and settings that it was made with, and volumes."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from decathlete.core.choices import Blend
from decathlete.core.files import file_digest, value_digest
from decathlete.core.geometry import PIXEL, Geometry, Triple
from decathlete.core.labels import LabelSet
from decathlete.core.schema import Schema
from decathlete.core.sliding_window import SlidingWindow
from decathlete.io.format_lookup import files_of
from decathlete.io.format_settings import ImageFormats
from decathlete.version import __version__

NOTICE = "Research use only. Not a medical device."


class ModelUse(Schema):
    """One model of a prediction, and the engine that computed it.

    Attributes:
        digest: of the model bundle or the exported program.
        dataset: that the model was trained on.
        dims: 2 (slices) or 3.
        weights: ``final`` or ``best``.
        engine: registered name, e.g. ``"torch"``.
        engine_settings: of the engine; those that are ``None`` are left out.
        precision: that the engine computed in.
    """

    digest: str
    dataset: str
    dims: Literal[2, 3]
    weights: str
    engine: str
    engine_settings: dict[str, JsonValue] = Field(default={}, exclude_if=operator.not_)
    precision: str


class RecordedSettings(Schema):
    """All that a prediction depends on beside its input: equal settings and inputs give equal predictions.

    Batch size and memory of the sliding window are no part of it: results do not depend on them. Settings of engines
    and formats are left out of files where there are none, as in older releases, so that records stay equal.

    Attributes:
        tta: flips along the axes that training mirrored.
        overlap: of neighbouring windows, share of the patch.
        blend: weights of a window's voxels.
        spacing: z, y, x in mm, that files without a spacing were read with.
        output: kind of the DICOM object and its options; ``None``: an image.
        image_formats: settings of the formats that images are read and label maps are written in, by name, where they
            differ from the defaults.
    """

    models: tuple[ModelUse, ...]
    tta: bool
    overlap: float
    blend: Blend
    spacing: Triple | None = None
    output: str | None = None
    image_formats: ImageFormats = Field(default={}, exclude_if=operator.not_)

    @classmethod
    def of(cls, models: Sequence[ModelUse], window: SlidingWindow) -> Self:
        """Return the settings of a prediction by ``models``."""
        return cls(models=tuple(models), tta=window.tta, overlap=window.overlap, blend=window.blend)


class PredictionRecord(Schema):
    """The JSON beside a prediction.

    Attributes:
        inputs: names of the files, without their folders.
        inputs_digest: of the files' bytes.
        label: file name of the label map.
        label_digest: its SHA-256, by which a file that was changed is noticed.
        probabilities: file name, if they were saved.
        decathlete: version that predicted.
        volumes_ml: structure (class or region) -> volume, mL; empty if the image has no spacing (unit ``pixel``).
        voxels: structure -> number of voxels; empty in records of older releases.
        warnings: properties of the input outside the range of the training data, and transforms that disagree.
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
    settings: RecordedSettings
    device: str
    volumes_ml: dict[str, float]
    voxels: dict[str, int] = {}
    warnings: tuple[str, ...]
    seconds: float


def inputs_digest(paths: Sequence[Path]) -> str:
    """Return the digest of the bytes of the images' files, in order."""
    return value_digest([image_digest(path) for path in paths])


def image_digest(path: Path) -> str | list[list[str]]:
    """Return the digest of an image in one file; of several files (DICOM slices, header and voxels), name and digest.

    Raises:
        OSError: a file cannot be read.
    """
    files = files_of(path)
    if files == (path,):
        return file_digest(path)
    return [[file.name, file_digest(file)] for file in files]


def voxel_counts(label_ZYX: NDArray[Any], labels: LabelSet) -> dict[str, int]:
    """Return the number of voxels of each structure (region, or foreground class).

    Args:
        label_ZYX: file values.
    """
    voxels: Counter[int] = Counter()
    for plane_YX in label_ZYX:  # plane by plane: a copy of the volume would be sorted
        present, counts = np.unique(plane_YX, return_counts=True)
        voxels.update(dict(zip(present.tolist(), counts.tolist(), strict=True)))
    return {s.name: sum(voxels[v] for v in s.values) for s in labels.structures}


def volumes_ml(voxels: Mapping[str, int], geometry: Geometry) -> dict[str, float]:
    """Return the volume of each structure, mL; empty if the grid has no spacing (unit ``pixel``).

    Args:
        voxels: of :func:`voxel_counts`.
    """
    if geometry.unit == PIXEL:
        return {}
    millilitres = geometry.voxel_volume_mm3 / 1000
    return {name: round(n * millilitres, 6) for name, n in voxels.items()}
