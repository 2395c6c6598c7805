"""DICOM: a folder of slices, or a file of one or more frames; sorted by position, rescaled, checked to be one grid."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry, Triple
from decathlete.core.placeholder_files import read_placeholder
from decathlete.errors import ImageError, NotAnImageError
from decathlete.io.dicom_frames import read_frames
from decathlete.io.dicom_grid import FrameGrid, check_alike, place_frames
from decathlete.io.dicom_header import DicomFile, Frame, kind_without_voxels, read_dicom_header
from decathlete.io.dicom_pixel_data import PixelLayout
from decathlete.io.dicom_reading import read_dicom
from decathlete.io.folder_tree import INDEX, starts_like_dicom
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat
from decathlete.io.read_errors import translate_read_error
from decathlete.io.read_warnings import warn_once
from decathlete.io.volumes import Volume, smallest_integer

_WITHOUT_PREAMBLE = re.compile(
    rb"\x02\0\0\0UL\x04\0|\x08\0[\x00\x05\x08\x12\x14\x16\x18]\0([A-Z]{2}|.\0\0\0)", re.DOTALL
)
"""The first element: the length of the header's group, or an element of group 8, of any encoding."""


@IMAGE_FORMATS.register("dicom")
class Dicom(ImageFormat):
    """DICOM, read only: the slices of one series in a folder, whatever their names, or one file with all its frames."""

    title = "DICOM"
    suffixes = (".dcm",)
    signatures = ((128, b"DICM"),)
    reads_folders = True
    takes_spacing = True

    def reads(self, path: Path) -> bool:
        """Whether a file starts like DICOM or is named ``.dcm``, or a folder directly holds such files.

        Reports and other objects without voxels do not make a folder an image if it contains folders: their series are
        the images.
        """
        if not path.is_dir():
            return _is_dicom_file(path)
        holds_folders = any(entry.is_dir() for entry in path.iterdir())
        found = (file for file in _candidates(path) if _is_dicom_file(file))
        return any(not (holds_folders and _is_without_voxels(file)) for file in found)

    def files_of(self, path: Path) -> tuple[Path, ...]:
        """The file, or all DICOM files directly in the folder."""
        return tuple(_slices(path)) if path.is_dir() else (path,)

    def read_header(self, path: Path, *, spacing: Triple | None = None) -> tuple[int, Geometry]:
        """Read the headers of all slices."""
        files = _read_files(path)
        return files[0].pixels.n_channels, _place(files, path, spacing).geometry

    def read_volume(self, path: Path, *, as_float32: bool = False, spacing: Triple | None = None) -> Volume:
        """All voxels, each frame rescaled by its own slope and intercept (PET has one per slice)."""
        files = _read_files(path)
        grid = _place(files, path, spacing)
        kind = np.dtype(np.float32) if as_float32 else _number_type(files)
        array_CZYX = np.empty((files[0].pixels.n_channels, *grid.geometry.shape_ZYX), kind)
        places = {(frame.path, frame.number): z for z, frame in enumerate(grid.frames)}
        for file in files:
            for frame, stored in zip(file.frames, read_frames(file.pixels), strict=True):
                measured = _rescale(_as_measured(file, stored), frame, kind)
                with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, which is reported
                    array_CZYX[:, places[frame.path, frame.number]] = np.moveaxis(np.atleast_3d(measured), -1, 0)
        return Volume(array_CZYX=array_CZYX, geometry=grid.geometry)

    def holds_integers(self, path: Path) -> bool:
        """Whether all slopes and intercepts are integers."""
        return _number_type(_read_files(path)).kind in "iu"


def read_frame_grid(path: Path, *, spacing: Triple | None = None) -> FrameGrid:
    """Return the frames of a folder of slices or a file in the order of the image's first axis, and their grid.

    Raises:
        ImageError: they are not DICOM, or do not lie on one grid.
    """
    with translate_read_error(path, Dicom.title):
        return _place(_read_files(path), path, spacing)


def _is_dicom_file(path: Path) -> bool:
    """Whether a file starts like DICOM part 10, or like DICOM without its preamble, or is named ``.dcm``."""
    if path.name.upper() == INDEX:
        return False
    if path.suffix.lower() == ".dcm" or starts_like_dicom(path):
        return True
    try:
        with path.open("rb") as stream:
            return _WITHOUT_PREAMBLE.match(stream.read(8)) is not None
    except OSError:
        return False


def _is_without_voxels(path: Path) -> bool:
    """Whether a file is an object that is no image of a patient, by its kind."""
    try:
        header = read_dicom(path, stop_before_pixels=True, specific_tags=["SOPClassUID"], force=True)
        return kind_without_voxels(str(header.get("SOPClassUID", ""))) is not None
    except Exception:  # pydicom raises anything for a damaged file, which the reader reports
        return False


def _candidates(folder: Path) -> list[Path]:
    """Visible files that may be slices, with links that lead nowhere."""
    return sorted(p for p in folder.iterdir() if (p.is_file() or not p.exists()) and not p.name.startswith("."))


def _slices(folder: Path) -> list[Path]:
    """DICOM files directly in a folder, and what stands for others: without them, the image would lack slices."""
    is_dicom = {path: _is_dicom_file(path) for path in _candidates(folder)}
    endings = {_ending(path) for path, found in is_dicom.items() if found}
    return [path for path, found in is_dicom.items() if found or (_ending(path) in endings and _is_absent(path))]


def _ending(path: Path) -> str:
    """The suffix that slices of one series share; the last part of a UID is none."""
    return "" if path.suffix[1:].isdecimal() else path.suffix.lower()


def _is_absent(path: Path) -> bool:
    """Whether a file is a pointer to its content, or a link that leads nowhere."""
    placeholder = read_placeholder(path)
    return not path.exists() or (placeholder is not None and placeholder.is_pointer)


def _read_files(path: Path) -> list[DicomFile]:
    """The headers of a file, or of the slices in a folder; objects without voxels beside them are left out."""
    if path.is_file():
        return [read_dicom_header(path)]
    files: list[DicomFile] = []
    left_out: list[NotAnImageError] = []
    for file in _slices(path):
        try:
            with translate_read_error(file, Dicom.title):
                files.append(_single(read_dicom_header(file)))
        except NotAnImageError as problem:
            left_out.append(problem)
    if not files:
        kinds = ", ".join(f"{n} times {kind}" for kind, n in Counter(p.kind for p in left_out).items())
        raise ImageError(
            f"contains no DICOM slices{f', but {kinds}' if kinds else ''}",
            where=path,
            remedy="name the folder that contains the slices",
            code="E-IMAGE-NOT-FOUND",
        )
    if left_out:
        listed = ", ".join(f"{p.where.name if isinstance(p.where, Path) else p.where} ({p.kind})" for p in left_out[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        warn_once(f"{path}: DICOM objects without voxels are not used: {listed}{more}")
    return files


def _single(file: DicomFile) -> DicomFile:
    """A file of a folder, which has to be one slice with a position."""
    if len(file.frames) > 1:
        raise ImageError(
            f"contains {len(file.frames)} frames, where single slices were expected",
            where=file.path,
            remedy="name this file itself as the input, or move it out of the folder",
            code="E-IMAGE-DICOM",
        )
    if file.frames[0].position is None or file.frames[0].cosines is None:
        raise ImageError(
            "does not contain its position in the patient (ImagePositionPatient, ImageOrientationPatient)",
            where=file.path,
            remedy="remove it from the folder, or export the series with these fields",
            code="E-IMAGE-DICOM",
        )
    return file


def _place(files: Sequence[DicomFile], path: Path, spacing: Triple | None) -> FrameGrid:
    check_alike(files, path)
    size_XY = files[0].size_XYC[:2]
    return place_frames([frame for file in files for frame in file.frames], size_XY, path, spacing)


def _as_measured(file: DicomFile, stored: NDArray[Any]) -> NDArray[Any]:
    """Invert radiographs that are to be shown inverted (MONOCHROME1); numbers of slices in space are measurements."""
    if file.pixels.photometric != "MONOCHROME1" or len(file.frames) > 1 or file.frames[0].position is not None:
        return stored
    return (-1 if file.pixels.is_signed else 2**file.pixels.bits_stored - 1) - stored.astype(np.int64)


def _number_type(files: Sequence[DicomFile]) -> np.dtype[Any]:
    """The smallest integers for what may be stored, or float32 if a slope or an intercept is not an integer."""
    if not all(_is_whole(frame) for file in files for frame in file.frames):
        return np.dtype(np.float32)
    bounds = [
        frame.slope * number + frame.intercept
        for file in files
        for frame in file.frames
        for number in _stored_range(file.pixels)
    ]
    return smallest_integer(np.array(bounds))


def _stored_range(pixels: PixelLayout) -> tuple[int, int]:
    half = 2 ** (pixels.bits_stored - 1)
    return (-half, half - 1) if pixels.is_signed else (0, 2 * half - 1)


def _is_whole(frame: Frame) -> bool:
    return all(abs(number) < 2**24 and number == round(number) for number in (frame.slope, frame.intercept))


def _rescale(stored: NDArray[Any], frame: Frame, kind: np.dtype[Any]) -> NDArray[Any]:
    if frame.slope == 1 and frame.intercept == 0:
        return stored
    if kind.kind == "f":
        return stored * frame.slope + frame.intercept
    whole: NDArray[Any] = stored.astype(np.int64) * int(frame.slope) + int(frame.intercept)
    return whole
