"""A folder of DICOM slices as one volume, through SimpleITK: sorted by position, rescale applied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry
from decathlete.dataset.itk import damage_named, ras_matrix, read_header
from decathlete.dataset.volumes import Volume
from decathlete.errors import ImageError

_GAP_TOLERANCE_MM = 0.05
_MAGIC_AT, _MAGIC = 128, b"DICM"


class DicomReader:
    """One series of slices in a folder. Messages name files, never what the headers say of a person."""

    def accepts(self, path: Path) -> bool:
        """A folder with DICOM files in it (by content, since many have no suffix), or one such file."""
        if path.is_dir():
            return any(_is_dicom(p) for p in sorted(path.iterdir())[:50])
        return _is_dicom(path)

    def grid(self, path: Path) -> tuple[int, Geometry]:
        """From the slices' headers."""
        with damage_named(path):
            _, geometry = _slices(path)
        return 1, geometry

    def volume(self, path: Path, *, as_float32: bool) -> Volume:
        """All slices stacked along their normal, ascending."""
        with damage_named(path):
            files, geometry = _slices(path)
            planes = [sitk.GetArrayFromImage(sitk.ReadImage(f)).reshape(geometry.shape_ZYX[1:]) for f in files]
        array_CZYX: NDArray[Any] = np.stack(planes)[None]
        return Volume(array_CZYX=array_CZYX.astype(np.float32) if as_float32 else array_CZYX, geometry=geometry)


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            stream.seek(_MAGIC_AT)
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _slices(path: Path) -> tuple[list[str], Geometry]:
    files = _series(path) if path.is_dir() else [str(path)]
    headers = {file: read_header(Path(file)) for file in files}
    first = headers[files[0]]
    direction = np.array(first.GetDirection()).reshape(3, 3)
    normal = direction[:, 2]
    height = {f: float(normal @ np.array(h.GetOrigin())) for f, h in headers.items()}
    ordered = sorted(files, key=height.__getitem__)
    _require_equal(path, [headers[f] for f in ordered])
    step = _step_mm(path, [height[f] for f in ordered], float(first.GetSpacing()[2]))
    lowest = headers[ordered[0]]
    columns = direction * np.array([*first.GetSpacing()[:2], step])
    if len(ordered) > 1:
        # The way from the first to the last slice, so that a tilted gantry's shear is kept.
        way = np.array(headers[ordered[-1]].GetOrigin()) - np.array(lowest.GetOrigin())
        columns[:, 2] = way / (len(ordered) - 1)
    x, y = first.GetSize()[:2]
    shape = (len(ordered), int(y), int(x))
    return ordered, Geometry.from_matrix(shape, ras_matrix(columns, np.array(lowest.GetOrigin())))


def _series(folder: Path) -> list[str]:
    ids = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not ids:
        raise ImageError("holds no DICOM series", where=folder, remedy="name the folder with the slices of one series")
    if len(ids) > 1:
        raise ImageError(
            f"holds {len(ids)} DICOM series", where=folder, remedy="put each series into a folder of its own"
        )
    return [str(f) for f in sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), ids[0])]


def _require_equal(path: Path, headers: list[Any]) -> None:
    first = headers[0]
    for header in headers[1:]:
        same_size = header.GetSize()[:2] == first.GetSize()[:2]
        if not same_size or not np.allclose(header.GetDirection(), first.GetDirection(), atol=1e-3):
            raise ImageError(
                "its slices differ in size or direction", where=path, remedy="keep one stack of parallel slices"
            )


def _step_mm(path: Path, heights: list[float], single: float) -> float:
    if len(heights) == 1:
        return single if single > 0 else 1.0
    gaps = np.diff(heights)
    middle = float(np.median(gaps))
    if middle <= 0 or float(np.abs(gaps - middle).max()) > max(_GAP_TOLERANCE_MM, 0.05 * middle):
        raise ImageError(
            f"its slices are not evenly spaced ({gaps.min():.2f} to {gaps.max():.2f} mm): a slice is missing or double",
            where=path,
            remedy="export the whole series again",
        )
    return middle
