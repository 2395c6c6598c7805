"""Sort DICOM files into series, and tell series that can be segmented from localizers, captures and other objects."""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from decathlete.io.dicom_header import kind_without_voxels
from decathlete.io.dicom_reading import read_dicom
from decathlete.io.folder_tree import INDEX, FolderTree, is_slice

SeriesOrientation = Literal["axial", "coronal", "sagittal", "oblique", "unknown"]
_PLANES: tuple[SeriesOrientation, ...] = ("sagittal", "coronal", "axial")
_STRAIGHT = 0.8
"""Least cosine between the normal of slices and an axis of the body that names their orientation."""
_INTEGER = re.compile(r"-?[0-9]{1,12}")  # the longest that DICOM allows
_SCAN = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(2|4|20|128)(\.[0-9]+)*")  # CT, MR, NM, PET
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_TAGS = (
    *("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription", "SeriesNumber", "Modality"),
    *("ImageType", "ImagePositionPatient", "ImageOrientationPatient", "Rows", "Columns", "NumberOfFrames"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)


@dataclass(frozen=True, kw_only=True)
class DicomSeries:
    """Slices of one series with one direction and size, or one file with all its frames.

    Attributes:
        files: sorted by name.
        number: of the series in its study; ``None``: not stored.
        description: text of the operator; it is never logged, since it may name a patient.
        n_slices: slices or frames.
    """

    study_uid: str
    series_uid: str
    files: tuple[Path, ...]
    modality: str
    description: str
    number: int | None
    orientation: SeriesOrientation
    n_slices: int

    @property
    def folder(self) -> Path:
        """The folder of the first file."""
        return self.files[0].parent

    def summary(self) -> str:
        """Return a text without the description: ``series 3: CT, axial, 120 slices``."""
        number = "without a number" if self.number is None else str(self.number)
        return f"series {number}: {self.modality or 'no modality'}, {self.orientation}, {self.n_slices} slices"


@dataclass(frozen=True, kw_only=True)
class SeriesScan:
    """The series of a set of files.

    Attributes:
        skipped: file -> why it belongs to no series that can be segmented.
        damaged: those that should be slices and cannot be read.
    """

    series: tuple[DicomSeries, ...]
    skipped: dict[Path, str] = field(default_factory=dict)
    damaged: frozenset[Path] = frozenset()


def find_series(folder: Path) -> SeriesScan:
    """Sort all DICOM files in a folder and below it."""
    return sort_series(path for path in FolderTree(root=folder).files() if is_slice(path))


def sort_series(files: Iterable[Path]) -> SeriesScan:
    """Sort DICOM files into series.

    Skipped are localizers, secondary captures, objects without voxels (and segmentations and doses), files that cannot
    be read, and slices with another direction or size than most of their series.
    """
    groups: dict[tuple[str, object], list[tuple[Path, Any]]] = defaultdict(list)
    skipped: dict[Path, str] = {}
    damaged = set()
    for path in files:
        try:
            header = read_dicom(path, stop_before_pixels=True, specific_tags=list(_TAGS), force=True)
            reason = "an index of DICOM files" if path.name.upper() == INDEX else _reason_to_skip(header)
            if reason is None:
                _series([(path, header)])  # all that is used later can be read
                groups[_text(header, "SeriesInstanceUID"), _grid_key(path, header)].append((path, header))
        except Exception as problem:  # pydicom raises anything for a damaged file
            reason = f"cannot be read: {type(problem).__name__}"
            damaged.add(path)
        if reason is not None:
            skipped[path] = reason
    return SeriesScan(series=_largest_of_each(groups, skipped), skipped=skipped, damaged=frozenset(damaged))


def stage_series(series: DicomSeries, folder: Path, *, damaged: Iterable[Path] = ()) -> Path:
    """Return a path at which the series lies alone: its file, or a new folder of links to its slices.

    Args:
        folder: the folder to make; its name is the name of the case.
        damaged: files beside the slices that may be slices of the series; they are linked, too, so that the reader
            reports them: without some of its slices, the series would be another image.
    """
    if len(series.files) == 1 and series.n_slices > 1:
        return series.files[0]
    folder.mkdir(parents=True)
    for file in (*series.files, *damaged):
        target = folder / file.name
        try:
            target.symlink_to(file.resolve())
        except OSError:  # a file system without links
            shutil.copyfile(file, target)
    return folder


def lies_alone(series: DicomSeries, *, besides: Iterable[Path] = ()) -> bool:
    """Return whether no other DICOM file lies beside the slices of a series, except ``besides``."""
    own = {*series.files, *besides}
    with os.scandir(series.folder) as entries:
        return not any(
            entry.is_file() and not entry.name.startswith(".") and Path(entry.path) not in own
            for entry in entries
            if is_slice(Path(entry.path))
        )


def _reason_to_skip(header: Any) -> str | None:
    sop_class = _text(header, "SOPClassUID") or str(header.file_meta.get("MediaStorageSOPClassUID", ""))
    if kind := kind_without_voxels(sop_class):
        return kind
    if not header.get("Rows"):
        if not sop_class or _SCAN.fullmatch(sop_class):
            raise ValueError("Rows is missing")
        return "a DICOM object without voxels"
    if sop_class.startswith(_SECONDARY_CAPTURE):
        return "a secondary capture"
    if "LOCALIZER" in [str(part).upper() for part in _values(header.get("ImageType"))]:
        return "a localizer"
    return None


def _grid_key(path: Path, header: Any) -> object:
    """Return what slices of one volume share; a file with several frames is a volume of its own."""
    if _frame_count(header) > 1:
        return path
    cosines = _cosines(header)
    rounded = tuple(np.round(cosines, 2).tolist()) if cosines is not None else None
    return rounded, header.get("Rows"), header.get("Columns")


def _largest_of_each(
    groups: dict[tuple[str, object], list[tuple[Path, Any]]], skipped: dict[Path, str]
) -> tuple[DicomSeries, ...]:
    by_series: dict[str, list[list[tuple[Path, Any]]]] = defaultdict(list)
    found = []
    for (uid, key), members in groups.items():
        if isinstance(key, Path):
            found.append(_series(members))
        else:
            by_series[uid].append(members)
    for alternatives in by_series.values():
        alternatives.sort(key=len, reverse=True)
        found.append(_series(alternatives[0]))
        for members in alternatives[1:]:
            reason = f"slices of another direction or size than the other {len(alternatives[0])} of their series"
            skipped.update({path: reason for path, _ in members})
    return tuple(sorted(found, key=lambda s: (s.number is None, s.number or 0, s.series_uid, s.files)))


def _series(members: Sequence[tuple[Path, Any]]) -> DicomSeries:
    header = members[0][1]
    return DicomSeries(
        study_uid=_text(header, "StudyInstanceUID"),
        series_uid=_text(header, "SeriesInstanceUID"),
        files=tuple(sorted(path for path, _ in members)),
        modality=_text(header, "Modality").upper(),
        description=_text(header, "SeriesDescription"),
        number=_number(header),
        orientation=_orientation(header),
        n_slices=sum(_frame_count(one) for _, one in members),
    )


def _number(header: Any) -> int | None:
    """Return the number of the series, which only names it; one that is not valid is left out."""
    try:
        text = _text(header, "SeriesNumber")
    except Exception:  # pydicom raises anything
        return None
    return int(text) if _INTEGER.fullmatch(text) else None


def _orientation(header: Any) -> SeriesOrientation:
    cosines = _cosines(header)
    if cosines is None:
        return "unknown"
    normal = np.abs(np.cross(cosines[:3], cosines[3:]))
    return _PLANES[int(normal.argmax())] if normal.max() >= _STRAIGHT else "oblique"


def _cosines(header: Any) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    values = header.get("ImageOrientationPatient")
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        if not values and header.get(groups) and header.get(groups)[0].get("PlaneOrientationSequence"):
            values = header.get(groups)[0].PlaneOrientationSequence[0].get("ImageOrientationPatient")
    numbers = [float(value) for value in _values(values)]
    return np.array(numbers) if len(numbers) == 6 else None


def _values(value: Any) -> list[Any]:
    if value is None or isinstance(value, str):
        return [value] if value else []
    return list(value)


def _frame_count(header: Any) -> int:
    return int(_text(header, "NumberOfFrames") or 1)


def _text(header: Any, name: str) -> str:
    value = header.get(name)
    return "" if value is None else str(value).strip()
