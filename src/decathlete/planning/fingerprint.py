"""The fingerprint of a dataset: the measurements that the plan is made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from decathlete.core.choices import Orientation
from decathlete.core.estimates import fingerprint_bytes
from decathlete.core.files import value_digest
from decathlete.core.geometry import Geometry, Shape, Triple, Unit, nonzero_box, reorientation
from decathlete.core.labels import IGNORE_INDEX, LabelSet, foreground_mask
from decathlete.core.limits import limit_workers
from decathlete.core.parallel import Workers, map_cases
from decathlete.core.rng import stream
from decathlete.core.schema import Schema
from decathlete.dataset.spec import Case, DatasetSpec
from decathlete.errors import CasesFailedError, DatasetError, GridMismatchError, ImageError
from decathlete.io.images import read_channels, read_label
from decathlete.io.largest_images import sizes_of_largest
from decathlete.planning.connected import is_connected, largest_share

FINGERPRINT_VERSION = 1

SAMPLE_TOTAL = 10_000_000
"""Foreground voxels in the intensity statistics, over all cases, for each channel (40 MB)."""
SAMPLE_PER_CASE = (1_000, 100_000)


class IntensityStatistics(Schema):
    """Intensities of one channel in the foreground voxels of all training cases (a seeded sample of each case)."""

    mean: float
    std: float
    median: float
    minimum: float
    maximum: float
    percentile_00_5: float
    percentile_99_5: float


class CaseFingerprint(Schema):
    """Measurements of one training case; axes in the fingerprint's ``orientation``.

    Attributes:
        shape: after the non-zero crop, voxels.
        spacing: in ``unit``.
        crop_ratio: voxels kept by the crop / voxels before, 0..1.
        class_voxels: voxels of each class index (background first).
        channel_means: mean intensity of each channel inside the crop box.
        unit: of the spacing; ``pixel`` if the file format has none.
    """

    case_id: str
    shape: Shape
    spacing: Triple
    crop_ratio: float
    class_voxels: tuple[int, ...]
    channel_means: tuple[float, ...]
    unit: Unit = "mm"


class Fingerprint(Schema):
    """Measurements of a whole dataset.

    Attributes:
        dataset_digest: digest of the manifest and of the files' sizes and times; it changes with the dataset.
        orientation: axes of ``cases``: canonical (superior, anterior, right) or as stored.
        connected: whether the foreground is one connected component in nearly all cases; unknown in fingerprints of
            older releases.
    """

    has_checksum = True

    version: int = FINGERPRINT_VERSION
    dataset_digest: str
    orientation: Orientation = "canonical"
    cases: tuple[CaseFingerprint, ...]
    intensity: tuple[IntensityStatistics, ...]
    connected: bool = Field(default=False, exclude_if=lambda connected: not connected)

    @property
    def unit(self) -> Unit:
        """Unit of all spacings."""
        return self.cases[0].unit if self.cases else "mm"

    def presence(self, labels: LabelSet) -> dict[str, frozenset[str]]:
        """Return the names of the foreground classes in each case; ``labels`` are those of the dataset."""
        names = [c.name for c in labels.foreground]
        return {
            case.case_id: frozenset(name for name, n in zip(names, case.class_voxels[1:], strict=True) if n)
            for case in self.cases
        }

    def class_volumes(self) -> dict[str, dict[int, float]]:
        """Return the volume of each foreground class that a case contains: case id -> class index -> mm³."""
        return {
            case.case_id: {
                index: n * prod(case.spacing) for index, n in enumerate(case.class_voxels) if index > 0 and n > 0
            }
            for case in self.cases
        }

    def digest(self) -> str:
        """Return the digest of the measurements that prepared data depend on."""
        values = self.model_dump(exclude={"connected"})
        for case in values["cases"]:
            if case["unit"] == "mm":  # fingerprints of older releases keep their digest
                del case["unit"]
        return value_digest(values)


@dataclass(frozen=True, kw_only=True)
class _MeasuredCase:
    """One case's measurements, and what only the whole dataset's are made from.

    Attributes:
        sample_CN: intensities of the foreground (channels, samples).
        largest_share: of the foreground, see :func:`~decathlete.planning.connected.largest_share`.
    """

    case: CaseFingerprint
    sample_CN: NDArray[np.float32]
    largest_share: float | None


def make_fingerprint(
    spec: DatasetSpec,
    *,
    orientation: Orientation = "canonical",
    workers: Workers = 2,
    progress: Callable[[str], None] | None = None,
) -> Fingerprint:
    """Read every training case once and measure it, ``workers`` at a time.

    In the intensity statistics all cases have the same weight: the same number of foreground voxels is drawn from each
    with replacement (10 million over the whole dataset, but 1,000 to 100,000 per case). The random stream depends on
    the case's id alone, so the result does not depend on ``workers`` or on the order of the cases.

    Args:
        progress: called with the id of each case when it is done.

    Raises:
        CasesFailedError: cases that cannot be read, whose label has another grid, or that contain NaN or infinity.
        DatasetError: no case has a label, or none has a foreground voxel.
    """
    cases = {case.id: case for case in spec.cases if case.label is not None}
    if not cases:
        raise DatasetError(
            "has no training case with a label",
            where=spec.root,
            remedy="add cases with label maps",
            code="E-DATASET-LABELS",
        )
    low, high = SAMPLE_PER_CASE
    n_samples = min(max(SAMPLE_TOTAL // len(cases), low), high)
    declared = replace(spec, cases=(), test_cases=())
    measure = partial(_measure, spec=declared, orientation=orientation, n_samples=n_samples)
    if isinstance(workers, int):
        images = {case_id: case.images for case_id, case in cases.items()}
        sizes = sizes_of_largest(images, workers, spacing=spec.spacing, formats=spec.formats)
        workers = limit_workers(workers, {i: fingerprint_bytes(size) for i, size in sizes.items()}, doing="measure")
    done, failures = {}, {}
    for outcome in map_cases(measure, cases, workers=workers):
        if outcome.value is None:
            failures[outcome.case_id] = outcome.error or "failed"
        else:
            done[outcome.case_id] = outcome.value
        if progress:
            progress(outcome.case_id)
    if failures:
        raise CasesFailedError(failures, n_done=len(done), doing="fingerprint")
    return _pool(spec, [done[case_id] for case_id in cases], orientation)


def _measure(case: Case, *, spec: DatasetSpec, orientation: Orientation, n_samples: int) -> _MeasuredCase:
    image_CZYX, label_ZYX, grid = _read(case, spec.labels, orientation, len(spec.channels))
    if image_CZYX.shape[0] != len(spec.channels):
        raise ImageError(
            f"has {image_CZYX.shape[0]} channels, the dataset declares {len(spec.channels)}",
            where=case.images[0],
            remedy="store the declared channels in every image",
            code="E-IMAGE-CHANNELS",
        )
    box = nonzero_box(image_CZYX)
    cropped = image_CZYX[(..., *box.slices)]
    means = cropped.mean(axis=(1, 2, 3), dtype=np.float64)
    if not np.isfinite(means).all():
        raise ImageError(
            "contains voxels that are NaN, infinite or beyond 3.4e38, the range of 32-bit numbers",
            where=case.images[0],
            remedy="fix the image, or remove the case",
            code="E-IMAGE-VALUES",
        )
    # slice by slice: bincount converts every voxel to 8 bytes
    counts = np.sum([np.bincount(label_YX.ravel(), minlength=IGNORE_INDEX + 1) for label_YX in label_ZYX], axis=0)
    measured = CaseFingerprint(
        case_id=case.id,
        shape=box.shape,
        spacing=grid.spacing_ZYX,
        unit=grid.unit,
        crop_ratio=float(np.prod(box.shape) / label_ZYX.size),
        class_voxels=tuple(counts[: spec.labels.n_classes].tolist()),
        channel_means=tuple(means.tolist()),
    )
    return _MeasuredCase(
        case=measured,
        largest_share=largest_share(label_ZYX, spec.labels.n_classes),
        sample_CN=_sample(image_CZYX, foreground_mask(label_ZYX, spec.labels.n_classes), case.id, n_samples),
    )


def _read(
    case: Case, labels: LabelSet, orientation: Orientation, n_channels: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8], Geometry]:
    """Return image and class indices in the fingerprint's axes, and their grid."""
    assert case.label is not None
    image, label = (
        read_channels(case.images, spacing=case.spacing, formats=case.formats, n_channels=n_channels),
        read_label(case.label, spacing=case.spacing, formats=case.formats, structures=case.structures),
    )
    if image.geometry.shape_ZYX != label.geometry.shape_ZYX:
        raise GridMismatchError(
            f"the label's shape {label.geometry.shape_ZYX} is not the image's {image.geometry.shape_ZYX}",
            where=case.label,
            remedy="run `decathlete check`, it lists all such cases",
        )
    axes = reorientation(image.geometry, orientation)
    indices_ZYX = labels.to_indices(label.array_ZYX, unannotated=case.unannotated)
    return axes.apply(image.array_CZYX), axes.apply(indices_ZYX), axes.geometry(image.geometry)


def _sample(
    image_CZYX: NDArray[np.float32], foreground_ZYX: NDArray[np.bool_], case_id: str, n_samples: int
) -> NDArray[np.float32]:
    foreground = np.flatnonzero(foreground_ZYX)
    if not foreground.size:
        return np.zeros((len(image_CZYX), 0), np.float32)
    drawn = foreground[stream(0, "fingerprint", case_id).integers(foreground.size, size=n_samples)]
    z, y, x = np.unravel_index(drawn, foreground_ZYX.shape)
    return np.asarray(image_CZYX[:, z, y, x], np.float32)


def _check_units(spec: DatasetSpec, measured: Sequence[_MeasuredCase]) -> None:
    in_pixels = [m.case.case_id for m in measured if m.case.unit == "pixel"]
    if in_pixels and len(in_pixels) < len(measured):
        raise DatasetError(
            f"{len(in_pixels)} of {len(measured)} cases have no spacing, the others are in mm "
            f"({', '.join(in_pixels[:5])}{', ...' if len(in_pixels) > 5 else ''})",
            where=spec.root,
            remedy="add --spacing Z,Y,X (mm) for those without, or convert them to a format that contains the spacing",
            code="E-IMAGE-SPACING",
        )


def _pool(spec: DatasetSpec, measured: Sequence[_MeasuredCase], orientation: Orientation) -> Fingerprint:
    _check_units(spec, measured)
    samples_CN = np.concatenate([m.sample_CN for m in measured], axis=1)
    if not samples_CN.size:
        raise DatasetError(
            "no training case has a foreground voxel",
            where=spec.root,
            remedy="check that the label maps contain the values in dataset.json",
            code="E-DATASET-LABELS",
        )
    return Fingerprint(
        dataset_digest=spec.digest(),
        orientation=orientation,
        cases=tuple(m.case for m in measured),
        intensity=tuple(_statistics(channel) for channel in samples_CN),
        connected=is_connected([m.largest_share for m in measured]),
    )


def _statistics(sample: NDArray[np.float32]) -> IntensityStatistics:
    low, median, high = np.percentile(sample, (0.5, 50, 99.5))
    return IntensityStatistics(
        mean=float(sample.mean(dtype=np.float64)),
        std=float(sample.std(dtype=np.float64)),
        median=float(median),
        minimum=float(sample.min()),
        maximum=float(sample.max()),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
    )
