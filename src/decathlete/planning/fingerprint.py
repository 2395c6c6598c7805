"""What the data are like: the numbers that the plan is made from."""

from __future__ import annotations

from decathlete.core.geometry import Shape, Triple
from decathlete.core.schema import Schema

FINGERPRINT_VERSION = 1


class IntensityStatistics(Schema):
    """Of one channel, over foreground voxels of all training cases (a fixed sample of each case, seeded)."""

    mean: float
    std: float
    median: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


class CaseFingerprint(Schema):
    """One training case, in canonical axis order Z, Y, X.

    Attributes:
        shape: after the non-zero crop, voxels.
        spacing: mm.
        crop_ratio: voxels kept by the crop / voxels before, 0..1.
        class_voxels: voxels of each class index (background first).
        channel_means: mean intensity of each channel inside the crop box.
    """

    case_id: str
    shape: Shape
    spacing: Triple
    crop_ratio: float
    class_voxels: tuple[int, ...]
    channel_means: tuple[float, ...]


class Fingerprint(Schema):
    """Of a whole dataset.

    Attributes:
        dataset_digest: of the manifest and the files' sizes and times, so that a changed dataset is seen.
    """

    version: int = FINGERPRINT_VERSION
    dataset_digest: str
    cases: tuple[CaseFingerprint, ...]
    intensity: tuple[IntensityStatistics, ...]
