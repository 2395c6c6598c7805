"""The series that a DICOM object refers to: headers of its slices or frames, in the order of the array."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decathlete.core.geometry import Triple
from decathlete.core.lazy_import import lazy_import
from decathlete.errors import OutputError
from decathlete.io.dicom_reading import quiet_pydicom, read_dicom
from decathlete.io.formats.dicom import read_frame_grid

pydicom = lazy_import("pydicom")

_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
REMEDY = "predict with --format nifti, or export the series again with all identifiers"
_PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
_SEXES = ("M", "F", "O")
_GREATEST_LENGTHS = {"PatientID": 64, "StudyID": 16, "AccessionNumber": 16}
"""Characters that DICOM allows (PS3.5, section 6.2: LO and SH)."""
_STUDY = ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SourceSeries:
    """Headers of a series.

    Attributes:
        datasets: of the slices in the order of the array's first axis; of a multi-frame file: its one header. The
            first one has all attributes of patient and study that an object needs, some of them empty.
        frames: number of the frame in its file for each place along the first axis, from 0.
        origins: position of the first voxel of each frame, LPS mm.
    """

    path: Path
    datasets: tuple[Any, ...]
    frames: tuple[int, ...]
    origins: tuple[tuple[float, float, float], ...]
    cosines: tuple[float, ...]
    spacing_YX: tuple[float, float]

    @property
    def is_multi_frame(self) -> bool:
        """Whether the series is one file with several frames."""
        return len(self.datasets) < len(self.frames)

    def dataset_of(self, place: int) -> Any:
        """Return the header of the slice at a place along the first axis."""
        return self.datasets[0] if self.is_multi_frame else self.datasets[place]


def read_source_series(path: Path, *, spacing: Triple | None = None) -> SourceSeries:
    """Read the headers of the series that was segmented.

    Args:
        path: folder of its slices, or a file.

    Raises:
        ImageError: it is not a DICOM series.
        OutputError: slices have no position, or identifiers are missing that an object must refer to.
    """
    grid = read_frame_grid(path, spacing=spacing)
    frames = grid.frames
    first = frames[0]
    if any(f.position is None or f.cosines is None for f in frames) or first.spacing_YX is None:
        raise unusable_source(path, "its slices have no position, which a DICOM segmentation refers to")
    paths = list(dict.fromkeys(frame.path for frame in frames))
    datasets = tuple(_read_header(file) for file in paths)
    _require_identifiers(datasets, path)
    _complete_patient_and_study(datasets[0])
    assert first.cosines is not None  # for the type checker: checked above
    return SourceSeries(
        path=path,
        datasets=datasets,
        frames=tuple(max(frame.number - 1, 0) for frame in frames),
        origins=tuple(tuple(map(float, f.position)) for f in frames if f.position is not None),  # type: ignore[misc]
        cosines=tuple(first.cosines.T.ravel().tolist()),
        spacing_YX=first.spacing_YX,
    )


def copy_patient_and_study(source: Any, target: Any) -> None:
    """Copy what identifies patient and study from the first header of a series."""
    for name in (*_PATIENT, *_STUDY):
        setattr(target, name, source[name].value)


def unusable_source(path: Path, problem: str) -> OutputError:
    """Return the error about a series that no DICOM object can refer to."""
    return OutputError(problem, where=path, remedy=REMEDY, code="E-OUTPUT-DICOM")


def _read_header(path: Path) -> Any:
    with quiet_pydicom():
        dataset = read_dicom(path, force=True, stop_before_pixels=True)
        for element in dataset:  # now, so that a damaged value is an error of reading
            _ = element.value
    return dataset


def _complete_patient_and_study(dataset: Any) -> None:
    """Set to empty what an object must have and a de-identifier has deleted, or replaced by a value not allowed."""
    for name in (*_PATIENT, *_STUDY):
        value = dataset.get(name)
        if value and _is_allowed(name, value):
            _warn_if_too_long(name, value)
            continue
        if value:
            log.warning("the series has no valid %s, so it is empty in the DICOM object", name)
        setattr(dataset, name, "")


def _warn_if_too_long(name: str, value: Any) -> None:
    """Log that an object keeps a value that is too long: a shorter one would name another patient or study."""
    limit = _GREATEST_LENGTHS.get(name)
    if limit is not None and len(str(value)) > limit:
        log.warning(
            "the %s of the series has %d characters (DICOM allows %d); the DICOM object has the same",
            name,
            len(str(value)),
            limit,
        )


def _is_allowed(name: str, value: Any) -> bool:
    if name == "PatientSex":
        return value in _SEXES
    try:
        if name.endswith("Date"):
            pydicom.valuerep.DA(value)
        elif name.endswith("Time"):
            pydicom.valuerep.TM(value)
    except ValueError:
        return False
    return True


def _require_identifiers(datasets: Sequence[Any], path: Path) -> None:
    for dataset in datasets:
        if missing := [name for name in _IDENTIFIERS if not dataset.get(name)]:
            raise unusable_source(path, f"its slices have no {', '.join(missing)}, which a DICOM object refers to")
    if len({d.SOPInstanceUID for d in datasets}) < len(datasets):
        raise unusable_source(path, "two of its slices have the same SOPInstanceUID")


def reference_to(dataset: Any) -> Any:
    """Return the item by which an object refers to the instance ``dataset``."""
    reference = pydicom.Dataset()
    reference.ReferencedSOPClassUID = dataset.SOPClassUID
    reference.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    return reference
