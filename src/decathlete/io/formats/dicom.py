"""DICOM: a folder of slices as one volume (sorted by position, rescaled, gaps checked), or a single file."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry
from decathlete.core.lazy_import import lazy_import
from decathlete.errors import ImageError
from decathlete.io.formats import IMAGE_FORMATS, ImageFormat
from decathlete.io.itk import grid_of, is_integer_header, ras_matrix, read_itk, read_itk_header
from decathlete.io.read_errors import translate_read_error
from decathlete.io.volumes import Volume

sitk = lazy_import("SimpleITK")

_SERIES, _POSITION, _ORIENTATION = "0020|000e", "0020|0032", "0020|0037"
_SLICE_DISTANCE, _SLICE_THICKNESS = "0018|0088", "0018|0050"
_NOT_SLICES = {"DICOMDIR"}
_GAP_ERROR = 0.1  # of the median gap: more means that slices are missing
_GAP_WARNING = 0.01

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Slice:
    path: Path
    series: str
    size_XY: tuple[int, int]
    steps_XY: NDArray[np.float64]  # voxel steps along x and y, LPS mm, as the columns of 3x2
    position: NDArray[np.float64]  # of the first voxel, LPS mm
    thickness: float
    components: int


@IMAGE_FORMATS.register("dicom")
class Dicom(ImageFormat):
    """DICOM, read only: the slices of one series in a folder, whatever their names, or one file with all its frames."""

    title = "DICOM"
    suffixes = (".dcm",)
    reads_folders = True

    def reads(self, path: Path) -> bool:
        """Whether a file starts like DICOM or is named ``.dcm``, or a folder directly holds such files."""
        if path.is_dir():
            return any(_is_dicom_file(p) for p in _candidates(path))
        return _is_dicom_file(path)

    def read_header(self, path: Path) -> tuple[int, Geometry]:
        """From the headers of all slices."""
        if path.is_file():
            return grid_of(read_itk_header(path), path)
        slices = _sort_slices(path)
        return slices[0].components, _geometry(slices)

    def read_volume(self, path: Path, *, as_float32: bool = False) -> Volume:
        """All voxels, rescaled; as float32 each slice by its own slope and intercept (PET has one per slice)."""
        if path.is_file():
            return read_itk(path)
        slices = _sort_slices(path)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([str(s.path) for s in slices])
        if as_float32:  # otherwise the slope of the first slice decides the number type, and rounds the others
            reader.SetOutputPixelType(sitk.sitkFloat32 if slices[0].components == 1 else sitk.sitkVectorFloat32)
        with _silence_reader():
            array = sitk.GetArrayFromImage(reader.Execute())
        geometry = _geometry(slices)
        if slices[0].components > 1:
            array = np.moveaxis(array, -1, 0)
        return Volume(array_CZYX=array.reshape(-1, *geometry.shape_ZYX), geometry=geometry)

    def holds_integers(self, path: Path) -> bool:
        """Type of the file or of the first slice, rescaled."""
        return is_integer_header(read_itk_header(path if path.is_file() else _sort_slices(path)[0].path))


def _is_dicom_file(path: Path) -> bool:
    """Whether a file starts like DICOM part 10 (128 bytes, then ``DICM``) or is named ``.dcm``."""
    if path.suffix.lower() == ".dcm":
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _candidates(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and p.name not in _NOT_SLICES
    )


def _sort_slices(folder: Path) -> list[_Slice]:
    """The slices of the folder's only series, by position along their normal."""
    slices = [_read_slice(p) for p in _candidates(folder) if _is_dicom_file(p)]
    if not slices:
        raise ImageError(
            "contains no DICOM files",
            where=folder,
            remedy="name the folder that contains the slices",
            code="E-IMAGE-NOT-FOUND",
        )
    series = defaultdict(list)
    for one in slices:
        series[one.series].append(one)
    if len(series) > 1:
        counts = ", ".join(str(len(s)) for s in series.values())
        raise ImageError(
            f"contains {len(series)} DICOM series (of {counts} files), and which one is meant is not clear",
            where=folder,
            remedy="put each series into a folder of its own",
            code="E-IMAGE-DICOM",
        )
    return _by_position(slices, folder)


def _read_slice(path: Path) -> _Slice:
    with _silence_reader(), translate_read_error(path, Dicom.title):
        header = read_itk_header(path)
    keys = set(header.GetMetaDataKeys())
    size = header.GetSize()
    if len(size) > 2 and size[2] > 1:
        raise ImageError(
            f"contains {size[2]} frames, where single slices were expected",
            where=path,
            remedy="name this file itself as the input, or move it out of the folder",
            code="E-IMAGE-DICOM",
        )
    if not {_POSITION, _ORIENTATION} <= keys:
        raise ImageError(
            "does not contain its position in the patient (ImagePositionPatient, ImageOrientationPatient)",
            where=path,
            remedy="remove it from the folder, or export the series with these fields",
            code="E-IMAGE-DICOM",
        )
    cosines = np.array(_numbers(header, _ORIENTATION)).reshape(2, 3).T
    thickness = next((_numbers(header, tag)[0] for tag in (_SLICE_DISTANCE, _SLICE_THICKNESS) if _has(header, tag)), 1)
    return _Slice(
        path=path,
        series=header.GetMetaData(_SERIES).strip() if _SERIES in keys else "",
        size_XY=(int(size[0]), int(size[1])),
        steps_XY=cosines * np.array(header.GetSpacing()[:2]),
        position=np.array(_numbers(header, _POSITION)),
        thickness=abs(thickness) or 1.0,
        components=header.GetNumberOfComponents(),
    )


def _has(header: Any, tag: str) -> bool:
    return bool(header.HasMetaDataKey(tag) and header.GetMetaData(tag).strip())


def _numbers(header: Any, tag: str) -> list[float]:
    return [float(part) for part in header.GetMetaData(tag).strip().split("\\")]


def _normal(one: _Slice) -> NDArray[np.float64]:
    normal = np.cross(one.steps_XY[:, 0], one.steps_XY[:, 1])
    return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)


def _by_position(slices: list[_Slice], folder: Path) -> list[_Slice]:
    first = slices[0]
    for one in slices[1:]:
        same = one.size_XY == first.size_XY and one.components == first.components
        if not same or not np.allclose(one.steps_XY, first.steps_XY, atol=1e-3):
            raise ImageError(
                f"slices {first.path.name} and {one.path.name} differ in size, pixel spacing or direction",
                where=folder,
                remedy="keep only the slices of one volume in the folder (move localisers away)",
                code="E-IMAGE-DICOM",
            )
    normal = _normal(first)
    ordered = sorted(slices, key=lambda s: float(s.position @ normal))
    _check_gaps(ordered, folder)
    return ordered


def _check_gaps(ordered: list[_Slice], folder: Path) -> None:
    """Reject slices that are not evenly spaced: a regular grid would put anatomy in the wrong place."""
    if len(ordered) < 2:
        return
    gaps = np.diff([float(s.position @ _normal(ordered[0])) for s in ordered])
    usual = float(np.median(gaps))
    if gaps.min() < 1e-3:
        at = int(gaps.argmin())
        raise ImageError(
            f"several slices lie at one position ({ordered[at].path.name} and {ordered[at + 1].path.name})",
            where=folder,
            remedy="keep one time point or reconstruction per folder, and no copies",
            code="E-IMAGE-DICOM",
        )
    worst = int(np.abs(gaps - usual).argmax())
    excess = abs(float(gaps[worst]) - usual)
    between = f"{gaps[worst]:.3g} mm between {ordered[worst].path.name} and {ordered[worst + 1].path.name}"
    if excess > _GAP_ERROR * usual:
        raise ImageError(
            f"slices are not evenly spaced: usually {usual:.3g} mm, but {between}",
            where=folder,
            remedy="add the missing slices, or resample the series to even slices first",
            code="E-IMAGE-DICOM",
        )
    if excess > _GAP_WARNING * usual:
        _log.warning("%s: slices are not quite evenly spaced: usually %.3g mm, but %s", folder, usual, between)


def _geometry(slices: list[_Slice]) -> Geometry:
    """The grid; the step between slices is measured, so a tilted gantry gives the shear it has."""
    first, last = slices[0], slices[-1]
    if len(slices) > 1:
        step = (last.position - first.position) / (len(slices) - 1)
    else:
        step = _normal(first) * first.thickness
    columns_XYZ = np.column_stack([first.steps_XY, step])
    width, height = first.size_XY
    return Geometry.from_matrix((len(slices), height, width), ras_matrix(columns_XYZ, first.position))


@contextmanager
def _silence_reader() -> Iterator[None]:
    """Keep ITK's own warnings (uneven slices, odd tags) from the terminal: what matters is checked here."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
