"""Read and write images and label maps of any known format, always with their place in the world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from decathlete.core.files import atomic_path
from decathlete.core.geometry import Geometry
from decathlete.core.schema import describe
from decathlete.errors import GridMismatchError, ImageError, OutputError
from decathlete.io import itk, nifti
from decathlete.io.dicom import DicomFolderReader, is_dicom_file
from decathlete.io.image_files import IMAGE_SUFFIXES, find_inputs, output_suffix, strip_suffix
from decathlete.io.volumes import Image, LabelMap, Reader, Volume, smallest_integer

__all__ = [
    "IMAGE_SUFFIXES",
    "Image",
    "LabelMap",
    "find_inputs",
    "holds_integers",
    "image_header",
    "output_suffix",
    "read_channels",
    "read_grid",
    "read_image",
    "read_label",
    "read_volume",
    "strip_suffix",
    "write_image",
    "write_label",
    "write_volume",
]

READERS: tuple[Reader, ...] = (nifti.NiftiReader(), itk.ItkReader(), DicomFolderReader())
"""Asked in this order; the first that accepts a path reads it."""

_ROUNDING = 1e-3
_GREATEST_LABEL = 2**31 - 1


def read_image(path: Path) -> Image:
    """Read an image: 2D (one slice), 3D, 4D with the channels last, or a folder of DICOM slices.

    Raises:
        ImageError: missing, damaged, of an unknown kind, or without a usable grid.
    """
    volume = _read(path, as_float32=True)
    return Image(array_CZYX=np.ascontiguousarray(volume.array_CZYX, dtype=np.float32), geometry=volume.geometry)


def read_channels(paths: Sequence[Path]) -> Image:
    """Read one image from one file per channel (or from a single file that holds all), on the first file's grid.

    Raises:
        GridMismatchError: the files do not share one grid.
        ImageError: a file cannot be read, or one of several holds more than one channel.
    """
    first = read_image(paths[0])
    if len(paths) == 1:
        return first
    channels = [first.array_CZYX]
    for path in paths[1:]:
        other = read_image(path)
        differences = first.geometry.differences(other.geometry)
        if differences:
            raise GridMismatchError(
                f"does not share the grid of {paths[0].name}: {'; '.join(differences)}",
                where=path,
                remedy="resample the channels of a case to one grid",
            )
        channels.append(other.array_CZYX)
    for path, channel in zip(paths, channels, strict=True):
        if channel.shape[0] != 1:
            raise ImageError(
                f"holds {channel.shape[0]} channels, where one file per channel was expected",
                where=path,
                remedy="store all channels in one file, or one in each",
                code="E-IMAGE-CHANNELS",
            )
    return Image(array_CZYX=np.concatenate(channels), geometry=first.geometry)


def read_label(path: Path) -> LabelMap:
    """Read a label map; integers stored as floating point are fine.

    Raises:
        ImageError: missing or damaged, more than one channel, or values that are not integers.
    """
    volume = _read(path, as_float32=False)
    if volume.array_CZYX.shape[0] != 1:
        raise ImageError(
            f"holds {volume.array_CZYX.shape[0]} channels, a label map has one",
            where=path,
            remedy="store one label map per file (one-hot maps as class values)",
            code="E-IMAGE-CHANNELS",
        )
    array_ZYX = np.ascontiguousarray(_integers(volume.array_CZYX[0], path))
    return LabelMap(array_ZYX=array_ZYX, geometry=volume.geometry)


def read_volume(path: Path) -> Volume:
    """Read an image in its own number type: integers as they are, anything else as float32.

    Raises:
        ImageError: missing, damaged, of an unknown kind, or without a usable grid.
    """
    if path.is_dir():  # slices of one DICOM series may be scaled differently
        return _read(path, as_float32=True)
    volume = _read(path, as_float32=False)
    kept = volume.array_CZYX.dtype.kind in "iu" or volume.array_CZYX.dtype == np.float32
    return volume if kept else _read(path, as_float32=True)


def holds_integers(path: Path) -> bool:
    """Whether a file's header says that its voxels are integers.

    Raises:
        ImageError: missing, damaged, or of an unknown kind.
    """
    return _reader(path).holds_integers(path)


def read_grid(path: Path) -> tuple[int, Geometry]:
    """Number of channels and the grid of an image, without its voxels where the format allows it.

    Raises:
        ImageError: missing, damaged, of an unknown kind, or without a usable grid.
    """
    reader = _reader(path)
    try:
        return reader.grid(path)
    except ValidationError as problem:
        raise _unusable_grid(path, problem) from None


def write_label(path: Path, label_ZYX: NDArray[Any], geometry: Geometry) -> None:
    """Write a label map whole or not at all: smallest integer type, slope 1, codes and units of ``geometry``.

    Raises:
        ImageError: values are not integers.
        OutputError: the place, or an image of this suffix, cannot be written.
    """
    values = _integers(label_ZYX, path)
    write_volume(path, values.astype(smallest_integer(values))[None], geometry)


def write_image(path: Path, image_CZYX: NDArray[Any], geometry: Geometry) -> None:
    """Write an image as float32, whole or not at all; several channels become the last axis.

    Raises:
        OutputError: the place, or an image of this suffix, cannot be written.
    """
    write_volume(path, image_CZYX.astype(np.float32, copy=False), geometry)


def write_volume(path: Path, array_CZYX: NDArray[Any], geometry: Geometry) -> None:
    """Write an image in the array's own number type, whole or not at all; several channels become the last axis.

    Raises:
        OutputError: the place, or an image of this suffix, cannot be written.
    """
    if array_CZYX.shape[1:] != geometry.shape_ZYX:
        raise ValueError(f"array {array_CZYX.shape[1:]} does not fill the grid {geometry.shape_ZYX}")
    name = path.name.lower()
    if not name.endswith((*nifti.SUFFIXES, *itk.WRITABLE)):
        raise OutputError(
            "images of this kind cannot be written",
            where=path,
            remedy=f"use one of {', '.join((*nifti.SUFFIXES, *itk.WRITABLE))}",
        )
    with atomic_path(path) as partial:
        if name.endswith(nifti.SUFFIXES):
            nifti.write_nifti(partial, array_CZYX, geometry)
        else:
            itk.write_itk(partial, array_CZYX, geometry)


def image_header(n_channels: int, geometry: Geometry) -> bytes:
    """The beginning of an uncompressed NIfTI file (``.nii``) of float32 channels; their numbers come next, in C order.

    With them it is the file that :func:`write_image` makes.
    """
    return nifti.header_bytes(n_channels, geometry)


def stored_bytes(path: Path) -> int:
    """How long an uncompressed NIfTI file (``.nii``) has to be by its header.

    Raises:
        ImageError: missing, or its header is damaged.
    """
    return nifti.stored_bytes(path)


def _reader(path: Path) -> Reader:
    if not path.exists():
        raise ImageError("does not exist", where=path, remedy="check the path", code="E-IMAGE-NOT-FOUND")
    for reader in READERS:
        if path.is_dir() == isinstance(reader, DicomFolderReader) and reader.accepts(path):
            return reader
    if path.is_file() and is_dicom_file(path):
        return READERS[1]
    raise ImageError(
        "is a folder without DICOM slices" if path.is_dir() else "is not an image of a known kind",
        where=path,
        remedy=f"use one of these kinds: {', '.join(IMAGE_SUFFIXES)}, or a folder of DICOM slices",
        code="E-IMAGE-FORMAT",
    )


def _read(path: Path, *, as_float32: bool) -> Volume:
    try:
        return _reader(path).volume(path, as_float32=as_float32)
    except ValidationError as problem:
        raise _unusable_grid(path, problem) from None


def _unusable_grid(path: Path, problem: ValidationError) -> ImageError:
    return ImageError("; ".join(describe(problem)), where=path, remedy="correct the header, or export this file again")


def _integers(values: NDArray[Any], path: Path) -> NDArray[np.integer[Any]]:
    if np.issubdtype(values.dtype, np.bool_):
        return values.astype(np.uint8)
    if np.issubdtype(values.dtype, np.integer):
        return values
    whole = np.rint(values)
    # a stored slope leaves rounding noise (0.9999999); anything more is interpolation
    with np.errstate(invalid="ignore"):  # of infinities
        wrong = ~(np.abs(values - whole) <= _ROUNDING) | (np.abs(whole) > _GREATEST_LABEL)
    if wrong.any():
        examples = ", ".join(f"{v:g}" for v in np.unique(values[wrong])[:4].tolist())
        raise ImageError(
            f"label values must be integers; {int(wrong.sum())} voxels are not (for example {examples})",
            where=path,
            remedy="export the label map again without interpolation (nearest neighbour), as integers",
            code="E-IMAGE-VALUES",
        )
    return np.asarray(whole.astype(smallest_integer(whole)))
