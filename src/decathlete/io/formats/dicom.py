"""DICOM: a folder of slices, or a file of one or more frames; sorted by position, rescaled, checked to be one grid."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry, Triple
from decathlete.core.lazy_import import lazy_import
from decathlete.core.placeholder_files import read_placeholder
from decathlete.errors import ImageError, NotAnImageError
from decathlete.io.dicom_grid import FrameGrid, check_alike, place_frames, warn_once
from decathlete.io.dicom_header import DicomFile, Frame, kind_without_voxels, read_dicom_header
from decathlete.io.dicom_numbers import read_stored_numbers
from decathlete.io.dicom_reading import read_dicom
from decathlete.io.folder_tree import INDEX, starts_like_dicom
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat
from decathlete.io.itk import is_integer_header, read_itk_header
from decathlete.io.read_errors import translate_read_error
from decathlete.io.volumes import Volume

sitk = lazy_import("SimpleITK")

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
        return _channels(files[0]), _place(files, path, spacing).geometry

    def read_volume(self, path: Path, *, as_float32: bool = False, spacing: Triple | None = None) -> Volume:
        """All voxels, rescaled; as float32 each slice by its own slope and intercept (PET has one per slice)."""
        files = _read_files(path)
        grid = _place(files, path, spacing)
        if path.is_dir():
            array = _read_series([frame.path for frame in grid.frames], as_float32, _channels(files[0]))
            array = _as_measured(array, {file.path: file for file in files}, grid.frames)
        else:
            array = _read_frames(files[0], grid.frames)
        return Volume(array_CZYX=array.reshape(-1, *grid.geometry.shape_ZYX), geometry=grid.geometry)

    def holds_integers(self, path: Path) -> bool:
        """Type of the file or of the first slice, rescaled."""
        files = _read_files(path)
        if len(files[0].frames) > 1:
            return all(_is_whole(frame) for frame in files[0].frames)
        return is_integer_header(read_itk_header(files[0].path))


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
    return place_frames([frame for file in files for frame in file.frames], files[0].size_XY, path, spacing)


def _channels(file: DicomFile) -> int:
    """Channels as SimpleITK reads them: a palette becomes colours."""
    return int(read_itk_header(file.path).GetNumberOfComponents())


def _read_series(paths: Sequence[Path], as_float32: bool, channels: int) -> NDArray[Any]:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    if as_float32:  # otherwise the slope of the first slice decides the number type, and rounds the others
        reader.SetOutputPixelType(sitk.sitkFloat32 if channels == 1 else sitk.sitkVectorFloat32)
    with _silence_reader():
        return _channels_first(reader.Execute())


def _channels_first(image: Any) -> NDArray[Any]:
    array: NDArray[Any] = sitk.GetArrayFromImage(image)
    return np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array


def _read_frames(file: DicomFile, ordered: Sequence[Frame]) -> NDArray[Any]:
    """The frames of one file in their order in space; each by its own slope and intercept."""
    if len(ordered) == 1:
        return _as_measured(_channels_first(sitk.ReadImage(str(file.path))), {file.path: file}, ordered)
    order = [frame.number - 1 for frame in ordered]
    if file.samples > 1 or file.bits_allocated not in (8, 16, 32):
        with _silence_reader():
            return _channels_first(sitk.ReadImage(str(file.path)))[..., order, :, :]
    return _rescale(read_stored_numbers(file)[order], ordered)


def _as_measured(array: NDArray[Any], file_of: Mapping[Path, DicomFile], frames: Sequence[Frame]) -> NDArray[Any]:
    """Undo ITK's inversion of slices that are to be shown inverted (MONOCHROME1): their numbers are measurements.

    Images without a position, such as radiographs, stay as ITK gives them.
    """
    files = [file_of[frame.path] for frame in frames]
    if files[0].photometric != "MONOCHROME1" or frames[0].position is None:
        return array
    greatest = [-1 if file.is_signed else 2**file.bits_stored - 1 for file in files]  # ITK: greatest + least - number
    inverted = zip(frames, greatest, strict=True)
    sums = np.array([frame.slope * number + 2 * frame.intercept for frame, number in inverted])[:, None, None]
    out: NDArray[Any] = sums - array
    return out.astype(array.dtype) if array.dtype.kind == "f" else np.rint(out).astype(np.int32)


def _rescale(stored_ZYX: NDArray[Any], frames: Sequence[Frame]) -> NDArray[Any]:
    if all(_is_whole(frame) for frame in frames):
        kind = np.int64 if stored_ZYX.dtype.itemsize == 4 else np.int32
        whole_ZYX: NDArray[Any] = stored_ZYX + np.array([int(f.intercept) for f in frames], kind)[:, None, None]
        return whole_ZYX
    slopes, intercepts = (np.array([getattr(f, n) for f in frames])[:, None, None] for n in ("slope", "intercept"))
    rescaled_ZYX: NDArray[np.float32] = (stored_ZYX * slopes + intercepts).astype(np.float32)
    return rescaled_ZYX


def _is_whole(frame: Frame) -> bool:
    return frame.slope == 1 and abs(frame.intercept) < 2**24 and frame.intercept == round(frame.intercept)


@contextmanager
def _silence_reader() -> Iterator[None]:
    """Keep ITK's own warnings (uneven slices, odd tags) from the terminal: what matters is checked here."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
