"""Sort DICOM files into series, and tell series that can be segmented from localizers, captures and other objects."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from decathlete.io.dicom_header import kind_without_voxels
from decathlete.io.dicom_reading import read_dicom
from decathlete.io.folder_tree import INDEX, FolderTree, is_slice
from decathlete.io.format_lookup import files_of

SeriesOrientation = Literal["axial", "coronal", "sagittal", "oblique", "unknown"]
_PLANES: tuple[SeriesOrientation, ...] = ("sagittal", "coronal", "axial")
SAME_DIRECTION = 0.01
"""Maximum difference of the direction cosines of slices of one volume, from one direction to the next.

The reader is much stricter: rounded numbers must not split a volume before it sees all slices.
"""
_PARALLEL = 0.98
"""Least cosine between the normals of slices that may be parts of one stack."""
_STRAIGHT = 0.8
"""Least cosine between the normal of slices and an axis of the body that names their orientation."""
_INTEGER = re.compile(r"-?[0-9]{1,12}")  # the longest that DICOM allows
_SCAN = re.compile(r"1\.2\.840\.10008\.5\.1\.4\.1\.1\.(2|4|20|128)(\.[0-9]+)*")  # CT, MR, NM, PET
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
HEADER_FIELDS = (
    *("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription", "SeriesNumber", "Modality"),
    *("ImageType", "ImagePositionPatient", "ImageOrientationPatient", "Rows", "Columns", "NumberOfFrames"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
"""Attributes by which files are sorted into series."""


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

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of all files, sorted."""
        return tuple(sorted({file.parent for file in self.files}))

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


def read_sorting_header(path: Path) -> Any:
    """Read what :func:`sort_series` uses of a file.

    Raises:
        Exception: of pydicom, in many kinds: it cannot be read.
    """
    return read_dicom(path, stop_before_pixels=True, specific_tags=list(HEADER_FIELDS), force=True)


def sort_series(files: Iterable[Path], *, read: Callable[[Path], Any] = read_sorting_header) -> SeriesScan:
    """Sort DICOM files into series.

    Skipped are localizers, secondary captures, objects without voxels (and segmentations and doses), files that cannot
    be read, and slices with another direction or size than most of their series. Slices that lie between those of the
    volume belong to it whatever their size, so that the reader rejects it: without them, it would be another image.

    Args:
        read: returns the header of a file, at least its :data:`HEADER_FIELDS`; another one, if it is not on this disk.
    """
    groups: dict[str, list[_File]] = defaultdict(list)
    skipped: dict[Path, str] = {}
    damaged = set()
    for path in files:
        try:
            header = read(path)
            reason = "an index of DICOM files" if path.name.upper() == INDEX else _reason_to_skip(header)
            if reason is None:
                file = _File.of(path, header)
                _series([file])  # all that is used later can be read
                groups[_text(header, "SeriesInstanceUID")].append(file)
        except Exception as problem:  # pydicom raises anything for a damaged file
            reason = f"cannot be read: {type(problem).__name__}"
            damaged.add(path)
        if reason is not None:
            skipped[path] = reason
    found = [_series(files) for of_series in groups.values() for files in _volumes(of_series, skipped)]
    found.sort(key=lambda one: (one.number is None, one.number or 0, one.series_uid, one.files))
    return SeriesScan(series=tuple(found), skipped=skipped, damaged=frozenset(damaged))


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
    for number, file in enumerate((*series.files, *damaged)):
        target = folder / file.name
        if os.path.lexists(target):  # of another folder
            target = folder / f"{number:06d}_{file.name}"
        try:
            target.symlink_to(file.resolve())
        except OSError:  # a file system without links
            shutil.copyfile(file, target)
    return folder


def series_uid(image: Path) -> str | None:
    """Return the identifier of the series of a file or of the first slice in a folder; ``None``: it is no DICOM."""
    first = files_of(image)[0]
    if not is_slice(first):
        return None
    try:
        header = read_dicom(first, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"], force=True)
        return _text(header, "SeriesInstanceUID") or None
    except Exception:  # pydicom raises anything for a damaged file, which the reader reports
        return None


def are_parts(found: Sequence[DicomSeries]) -> bool:
    """Return whether several lists of slices are parts of one series, not copies of it.

    No two parts share a position or the identifier of a slice; a copy with other positions has the same identifiers.
    """
    if len({one.orientation for one in found}) > 1:
        return False
    seen: set[str] = set()
    for one in found:
        places, uids = (set(texts) for texts in zip(*map(_identity, one.files), strict=True))
        if "" in places or seen & (places | uids):
            return False
        seen |= places | uids - {""}
    return True


def _identity(file: Path) -> tuple[str, str]:
    """Return position and identifier of a slice as they are stored; empty: not stored, or not to be read."""
    names = ("ImagePositionPatient", "SOPInstanceUID")
    try:
        header = read_dicom(file, stop_before_pixels=True, specific_tags=list(names), force=True)
        place, uid = (_text(header, name) for name in names)
    except Exception:  # pydicom raises anything
        return "", ""
    return place, uid


def describe_folders(series: DicomSeries) -> str:
    """Return how many files of a series lie in each of its folders: ``A (3 files), B (3 files)``."""
    counts = Counter(file.parent for file in series.files)
    return ", ".join(f"{folder} ({n} files)" for folder, n in sorted(counts.items()))


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


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file and what places it in its series; ``None``: not stored, or not usable."""

    path: Path
    header: Any
    n_frames: int
    size: tuple[int, int]
    cosines: NDArray[np.float64] | None
    position: NDArray[np.float64] | None

    @classmethod
    def of(cls, path: Path, header: Any) -> _File:
        return cls(
            path=path,
            header=header,
            n_frames=_frame_count(header),
            size=(int(header.get("Rows") or 0), int(header.get("Columns") or 0)),
            cosines=_cosines(header),
            position=_position(header),
        )


def _volumes(files: Sequence[_File], skipped: dict[Path, str]) -> list[list[_File]]:
    """Return the files of a series that are volumes: each with several frames, and the largest stack of slices."""
    stacks = sorted(_stacks([file for file in files if file.n_frames <= 1]), key=len, reverse=True)
    for stack in stacks[1:]:
        if _is_between(stack, stacks[0]):
            stacks[0] += stack
        else:
            reason = f"slices of another direction or size than the other {len(stacks[0])} of their series"
            skipped.update({file.path: reason for file in stack})
    return [[file] for file in files if file.n_frames > 1] + stacks[:1]


def _stacks(slices: Sequence[_File]) -> list[list[_File]]:
    """Group slices by size and direction; one joins a group if its direction is close to that of any member."""
    of_size: dict[tuple[tuple[int, int], bool], list[_File]] = defaultdict(list)
    for file in slices:
        of_size[file.size, file.cosines is None].append(file)
    stacks: dict[tuple[tuple[int, int], bool, int], list[_File]] = defaultdict(list)
    for (size, is_unknown), files in of_size.items():
        found = [file.cosines for file in files if file.cosines is not None]
        numbers = [0] * len(files) if is_unknown else _cluster(np.array(found))
        for number, file in zip(numbers, files, strict=True):
            stacks[size, is_unknown, number].append(file)
    return list(stacks.values())


def _cluster(cosines: NDArray[np.float64]) -> list[int]:
    """Return a number for the direction of each slice; directions that others connect have the same one."""
    distinct, place = np.unique(cosines.round(4), axis=0, return_inverse=True)
    numbers = np.arange(len(distinct))
    for direction in distinct:
        near = np.abs(distinct - direction).max(axis=1) <= SAME_DIRECTION
        numbers[np.isin(numbers, numbers[near])] = numbers[near].min()
    return [int(number) for number in numbers[place.ravel()]]


def _is_between(stack: Sequence[_File], largest: Sequence[_File]) -> bool:
    """Return whether slices are parallel to those of another stack, and some lie between two of its slices."""
    first, other = largest[0].cosines, stack[0].cosines
    if first is None or other is None:
        return False
    normal = np.cross(first[:3], first[3:])
    heights, own = (
        np.array([file.position @ normal for file in files if file.position is not None]) for files in (largest, stack)
    )
    if len(heights) < 2 or abs(normal @ np.cross(other[:3], other[3:])) < _PARALLEL:
        return False
    usual = float(np.median(np.diff(np.sort(heights))))
    inside = own[(own > heights.min()) & (own < heights.max())]
    return any(np.abs(heights - height).min() > usual / 10 for height in inside)


def _series(files: Sequence[_File]) -> DicomSeries:
    header = files[0].header
    return DicomSeries(
        study_uid=_text(header, "StudyInstanceUID"),
        series_uid=_text(header, "SeriesInstanceUID"),
        files=tuple(sorted(file.path for file in files)),
        modality=_text(header, "Modality").upper(),
        description=_text(header, "SeriesDescription"),
        number=_number(header),
        orientation=_orientation(header),
        n_slices=sum(file.n_frames for file in files),
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


def _position(header: Any) -> NDArray[np.float64] | None:
    try:
        numbers = np.array([float(value) for value in _values(header.get("ImagePositionPatient"))])
    except Exception:  # pydicom raises anything; the reader reports it
        return None
    return numbers if numbers.shape == (3,) and np.isfinite(numbers).all() else None


def _cosines(header: Any) -> NDArray[np.float64] | None:
    values = header.get("ImageOrientationPatient")
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        if not values and header.get(groups) and header.get(groups)[0].get("PlaneOrientationSequence"):
            values = header.get(groups)[0].PlaneOrientationSequence[0].get("ImageOrientationPatient")
    numbers = [float(value) for value in _values(values)]
    return np.array(numbers) if len(numbers) == 6 and np.isfinite(numbers).all() else None


def _values(value: Any) -> list[Any]:
    if value is None or isinstance(value, str):
        return [value] if value else []
    return list(value)


def _frame_count(header: Any) -> int:
    return int(_text(header, "NumberOfFrames") or 1)


def _text(header: Any, name: str) -> str:
    value = header.get(name)
    return "" if value is None else str(value).strip()
