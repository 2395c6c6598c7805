"""Images and label maps, read and written: one protocol, the reader found by suffix or content."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.files import atomic_path
from decathlete.core.geometry import Geometry
from decathlete.dataset import itk, nifti
from decathlete.dataset.dicom import DicomReader
from decathlete.dataset.volumes import Image, LabelMap, Reader, smallest_integer
from decathlete.errors import DatasetError, GridMismatch, ImageError

__all__ = [
    "IMAGE_SUFFIXES",
    "Image",
    "LabelMap",
    "find_inputs",
    "output_suffix",
    "read_channels",
    "read_grid",
    "read_image",
    "read_label",
    "strip_suffix",
    "write_image",
    "write_label",
]

IMAGE_SUFFIXES = (*nifti.SUFFIXES, *itk.SUFFIXES)
"""Suffixes of image files, longest first where one ends another."""

_READERS: tuple[Reader, ...] = (nifti.NiftiReader(), itk.ItkReader(), DicomReader())
_CHANNEL = re.compile(r"^(?P<id>.+)_(?P<channel>\d{4})$")


def read_image(path: Path) -> Image:
    """One image as float32, stored scaling applied. A folder is read as one DICOM series.

    Raises:
        ImageError: missing, damaged, or of a kind that no reader knows.
    """
    volume = _reader(path).volume(path, as_float32=True)
    return Image(array_CZYX=np.ascontiguousarray(volume.array_CZYX, dtype=np.float32), geometry=volume.geometry)


def read_channels(paths: Sequence[Path]) -> Image:
    """The channels of one case, from one file that holds all or from one file each.

    Raises:
        GridMismatch: the files do not share one grid.
    """
    images = [read_image(path) for path in paths]
    first = images[0]
    for path, image in zip(paths[1:], images[1:], strict=True):
        differences = first.geometry.differences(image.geometry)
        if differences:
            raise GridMismatch(
                f"does not share the grid of {paths[0].name}: {'; '.join(differences)}",
                where=path,
                remedy="resample the channels of a case onto one grid first",
            )
    if len(images) == 1:
        return first
    return Image(array_CZYX=np.concatenate([i.array_CZYX for i in images]), geometry=first.geometry)


def read_label(path: Path) -> LabelMap:
    """A label map; integers stored as floating-point numbers are taken as what they are.

    Raises:
        ImageError: values that are not integers, or more than one channel.
    """
    volume = _reader(path).volume(path, as_float32=False)
    array = volume.array_CZYX
    if array.shape[0] != 1:
        raise ImageError(
            f"has {array.shape[0]} channels; a label map has one",
            where=path,
            remedy="merge them into one map of integer values, or declare regions",
        )
    return LabelMap(array_ZYX=np.ascontiguousarray(_integers(array[0], path)), geometry=volume.geometry)


def _integers(array_ZYX: NDArray[Any], path: Path) -> NDArray[np.integer[Any]]:
    if array_ZYX.dtype.kind in "iub":
        return np.asarray(array_ZYX.astype(np.uint8) if array_ZYX.dtype.kind == "b" else array_ZYX)
    rounded = np.rint(array_ZYX)
    # Some tools store integers with rounding noise (1.0000001); halves and thirds are a mistake.
    if not np.isfinite(array_ZYX).all() or np.abs(array_ZYX - rounded).max(initial=0) > 1e-3:
        wrong = array_ZYX[~(np.abs(array_ZYX - rounded) <= 1e-3)]
        raise ImageError(
            f"label values are not integers (found {float(wrong.flat[0]):g})",
            where=path,
            remedy="store the label map with integer values; resample label maps by nearest neighbour",
        )
    whole: NDArray[np.integer[Any]] = rounded.astype(smallest_integer(rounded))
    return whole


def read_grid(path: Path) -> tuple[int, Geometry]:
    """Number of channels and the grid, from the header alone where the format allows it."""
    return _reader(path).grid(path)


def write_label(path: Path, label_ZYX: NDArray[np.integer[Any]], geometry: Geometry) -> None:
    """Write a label map: the smallest integer type that holds it, slope 1, the header codes of ``geometry``.

    Raises:
        OutputError: the file cannot be written.
    """
    _write(path, label_ZYX.astype(smallest_integer(label_ZYX))[None], geometry)


def write_image(path: Path, image_CZYX: NDArray[np.floating[Any]], geometry: Geometry) -> None:
    """Write float32 intensities or probabilities; several channels: 4D, channels last.

    Raises:
        OutputError: the file cannot be written.
    """
    _write(path, image_CZYX.astype(np.float32, copy=False), geometry)


def _write(path: Path, array_CZYX: NDArray[Any], geometry: Geometry) -> None:
    if array_CZYX.shape[1:] != geometry.shape_ZYX:
        raise ImageError(f"an array of {array_CZYX.shape[1:]} does not fit the grid {geometry.shape_ZYX}", where=path)
    name = path.name.lower()
    if not name.endswith((*nifti.SUFFIXES, *itk.WRITABLE)):
        raise ImageError(
            "is of a kind that is not written", where=path, remedy="end the name in .nii.gz, .nii, .nrrd or .mha"
        )
    write = nifti.write_nifti if name.endswith(nifti.SUFFIXES) else itk.write_itk
    with atomic_path(path) as partial:
        write(partial, array_CZYX, geometry)


def _reader(path: Path) -> Reader:
    if not path.exists():
        raise ImageError("does not exist", where=path, remedy="check the path")
    for reader in _READERS:
        if reader.accepts(path):
            return reader
    raise ImageError(
        "is not an image of a known kind",
        where=path,
        remedy=f"give {', '.join(IMAGE_SUFFIXES)}, or a folder of DICOM slices",
    )


def find_inputs(path: Path) -> dict[str, tuple[Path, ...]]:
    """The cases under ``path``: id -> its channel files, ids ascending.

    A file is one case. A folder of image files is many; ``ID_0000``, ``ID_0001``, ... are the channels of one.
    A folder of DICOM slices is one case, and a folder of such folders many.

    Raises:
        DatasetError: nothing is there, or no image is in it.
    """
    if not path.exists():
        raise DatasetError("does not exist", where=path, remedy="check the path")
    if path.is_file():
        return {_CHANNEL.sub(r"\g<id>", strip_suffix(path.name)): (path,)}
    found = _group_channels(sorted(p for p in path.iterdir() if _is_image(p)))
    if not found:
        dicom = DicomReader()
        folders = [p for p in (path, *sorted(path.iterdir())) if p.is_dir() and dicom.accepts(p)]
        found = {p.name: (p,) for p in folders[:1] if p == path} or {p.name: (p,) for p in folders}
    if not found:
        raise DatasetError(
            "holds no images", where=path, remedy=f"name a folder with files that end in {', '.join(IMAGE_SUFFIXES)}"
        )
    return found


def _is_image(path: Path) -> bool:
    # Single .dcm files in a folder are slices of a series, not cases.
    name = path.name.lower()
    return path.is_file() and not name.startswith(".") and name.endswith(IMAGE_SUFFIXES) and not name.endswith(".dcm")


def _group_channels(files: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    cases: dict[str, list[Path]] = {}
    for file in files:
        stem = strip_suffix(file.name)
        match = _CHANNEL.match(stem)
        cases.setdefault(match["id"] if match else stem, []).append(file)
    return {case_id: tuple(channels) for case_id, channels in sorted(cases.items())}


def strip_suffix(name: str) -> str:
    """The name without its image suffix: ``liver_1.nii.gz`` -> ``liver_1``."""
    lower = name.lower()
    for suffix in sorted(IMAGE_SUFFIXES, key=len, reverse=True):
        if lower.endswith(suffix):
            return name[: -len(suffix)]
    return name


def output_suffix(path: Path) -> str:
    """The suffix that a prediction for ``path`` gets: the input's own where it can be written, else ``.nii.gz``."""
    lower = path.name.lower()
    for suffix in (*nifti.SUFFIXES, *itk.WRITABLE):
        if path.is_file() and lower.endswith(suffix):
            return suffix
    return ".nii.gz"
