"""Read and write images and label maps of any known format, always with their grid in the world.

Readers have two arguments in common: ``spacing``, z, y, x in mm, for axes whose spacing the file does not contain;
without it, such a file is an error if its format has a field for the spacing, and an image in pixels if it has none.
And ``formats``, settings of image formats, of which those of the file's format are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.files import atomic_path
from decathlete.core.geometry import Geometry, Triple
from decathlete.core.registry import ComponentSettings
from decathlete.errors import GridMismatchError, ImageError, OutputError
from decathlete.io.dicom_label import LabelStructures, read_structure_label
from decathlete.io.dicom_structures import Warn
from decathlete.io.format_lookup import (
    find_format,
    format_of_suffix,
    image_suffixes,
    is_picture,
    output_suffix,
    suffix_of,
    writable_suffixes,
)
from decathlete.io.format_settings import FormatSettings, with_settings
from decathlete.io.formats import ImageFormat
from decathlete.io.image_files import find_inputs, strip_suffix
from decathlete.io.limits import check_grid, damage_error
from decathlete.io.missing_files import missing_image, placeholder_image
from decathlete.io.read_errors import translate_read_error
from decathlete.io.volumes import MAX_CLASSES, Image, LabelMap, Volume, smallest_integer

__all__ = [
    "Image",
    "LabelMap",
    "find_inputs",
    "holds_integers",
    "image_suffixes",
    "is_grey",
    "match_channels",
    "output_suffix",
    "read_channels",
    "read_grid",
    "read_image",
    "read_label",
    "read_volume",
    "strip_suffix",
    "writable_suffixes",
    "write_image",
    "write_label",
    "write_volume",
]

_ROUNDING = 1e-3
_MAX_LABEL = 2**31 - 1


def read_image(path: Path, *, spacing: Triple | None = None, formats: FormatSettings = ()) -> Image:
    """Read an image: 2D (one slice), 3D, 4D with the channels last, or a folder of DICOM slices.

    Raises:
        ImageError: missing, damaged, of an unknown kind, or without a usable grid.
    """
    volume = _read(path, as_float32=True, spacing=spacing, formats=formats)
    return Image(array_CZYX=np.ascontiguousarray(volume.array_CZYX, dtype=np.float32), geometry=volume.geometry)


def read_channels(
    paths: Sequence[Path],
    *,
    spacing: Triple | None = None,
    formats: FormatSettings = (),
    n_channels: int | None = None,
) -> Image:
    """Read one image from one file per channel (or from a single file that holds all), on the first file's grid.

    Args:
        n_channels: that the dataset or the model declares. A grey picture that was saved as RGB is then read as one
            channel where one is declared, and a grey picture as three equal channels where three are.

    Raises:
        GridMismatchError: the files do not share one grid.
        ImageError: a file cannot be read, or one of several holds more than one channel.
    """
    first = read_image(paths[0], spacing=spacing, formats=formats)
    if len(paths) == 1:
        return match_channels(paths[0], first, n_channels)
    channels = [first.array_CZYX]
    for path in paths[1:]:
        other = read_image(path, spacing=spacing, formats=formats)
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
                f"contains {channel.shape[0]} channels, where one file per channel was expected",
                where=path,
                remedy="store all channels in one file, or one in each",
                code="E-IMAGE-CHANNELS",
            )
    return Image(array_CZYX=np.concatenate(channels), geometry=first.geometry)


def match_channels(path: Path, image: Image, n_channels: int | None) -> Image:
    """Return a picture with the declared channels, where it is grey and was saved with 1 or 3 channels instead."""
    array_CZYX = image.array_CZYX
    if n_channels not in (1, 3) or {n_channels, len(array_CZYX)} != {1, 3} or not is_picture(path):
        return image
    if n_channels == 3:
        return replace(image, array_CZYX=np.repeat(array_CZYX, 3, axis=0))
    return replace(image, array_CZYX=array_CZYX[:1]) if is_grey(array_CZYX) else image


def is_grey(array_CZYX: NDArray[Any]) -> bool:
    """Return whether red, green and blue are equal in every voxel: grey that was saved as RGB."""
    return len(array_CZYX) == 3 and bool((array_CZYX == array_CZYX[:1]).all())


def read_label(
    path: Path,
    *,
    spacing: Triple | None = None,
    formats: FormatSettings = (),
    structures: LabelStructures | None = None,
    warn: Warn | None = None,
) -> LabelMap:
    """Read a label map; integers stored as floating point are fine.

    Args:
        structures: of a DICOM SEG object or RT structure set, which is no image by itself.
        warn: called for parts of such an object that are not used or are missing; ``None``: a warning is logged.

    Raises:
        ImageError: missing or damaged, more than one channel, or values that are not integers.
    """
    if structures is not None:
        _, geometry = read_grid(structures.image, spacing=spacing, formats=formats)
        return read_structure_label(path, geometry, structures.names, warn, others=structures.others)
    volume = _read(path, as_float32=False, spacing=spacing, formats=formats, is_label=True)
    if volume.array_CZYX.shape[0] != 1:
        raise _label_channels_error(path, volume.array_CZYX.shape[0])
    array_ZYX = np.ascontiguousarray(_integers(volume.array_CZYX[0], path))
    return LabelMap(array_ZYX=array_ZYX, geometry=volume.geometry)


def _label_channels_error(path: Path, n_channels: int) -> ImageError:
    problem = f"contains {n_channels} channels, a label map has one"
    remedy = (
        "store one label map per file: one-hot maps as class values, overlapping segments of 3D Slicer as an exported "
        "label map"
    )
    if n_channels == 3 and path.is_file() and is_picture(path):
        problem = "is in colour, a label map has one number in each pixel"
        remedy = "write the class value (0, 1, 2, ...) of each colour to a grey picture"
    return ImageError(problem, where=path, remedy=remedy, code="E-IMAGE-CHANNELS")


def read_volume(path: Path, *, spacing: Triple | None = None, formats: FormatSettings = ()) -> Volume:
    """Read an image in its own number type: integers as they are, anything else as float32.

    Raises:
        ImageError: missing, damaged, of an unknown kind, or without a usable grid.
    """
    read = partial(_read, path, spacing=spacing, formats=formats)
    if path.is_dir():  # slices of one series may be scaled differently
        return read(as_float32=True)
    volume = read(as_float32=False)
    kept = volume.array_CZYX.dtype.kind in "iu" or volume.array_CZYX.dtype == np.float32
    return volume if kept else read(as_float32=True)


def holds_integers(path: Path, *, formats: FormatSettings = ()) -> bool:
    """Whether the voxels of a file are integers, by its header.

    Raises:
        ImageError: missing, damaged, or of an unknown kind.
    """
    found = _format(path, formats)
    with translate_read_error(path, found.title):
        return found.holds_integers(path)


def read_grid(path: Path, *, spacing: Triple | None = None, formats: FormatSettings = ()) -> tuple[int, Geometry]:
    """Number of channels and the grid of an image, without its voxels where the format allows it.

    Raises:
        ImageError: missing, damaged, of an unknown kind, or without a usable grid.
    """
    found = _format(path, formats)
    with translate_read_error(path, found.title):
        channels, geometry = found.read_header(path, **_spacing_argument(found, spacing))
        geometry = _in_mm(geometry, spacing)
        check_grid(path, channels, geometry)
    return channels, geometry


def write_label(
    path: Path, label_ZYX: NDArray[Any], geometry: Geometry, *, settings: Iterable[ComponentSettings] = ()
) -> None:
    """Write a label map whole or not at all: smallest integer type, slope 1, codes and units of ``geometry``.

    Args:
        settings: of image formats; those of the format that is written are used.

    Raises:
        ImageError: values are not integers.
        OutputError: the place, or an image of this suffix, cannot be written.
    """
    values = _integers(label_ZYX, path)
    write_volume(path, values.astype(smallest_integer(values))[None], geometry, settings=settings)


def write_image(path: Path, image_CZYX: NDArray[Any], geometry: Geometry) -> None:
    """Write an image as float32, whole or not at all; several channels become the last axis.

    Raises:
        OutputError: the place, or an image of this suffix, cannot be written.
    """
    write_volume(path, image_CZYX.astype(np.float32, copy=False), geometry)


def write_volume(
    path: Path, array_CZYX: NDArray[Any], geometry: Geometry, *, settings: Iterable[ComponentSettings] = ()
) -> None:
    """Write an image in the array's own number type, whole or not at all; several channels become the last axis.

    Args:
        settings: of image formats; those of the format that is written are used.

    Raises:
        OutputError: the place, or an image of this suffix, cannot be written.
    """
    if array_CZYX.shape[1:] != geometry.shape_ZYX:
        raise ValueError(f"array {array_CZYX.shape[1:]} does not fill the grid {geometry.shape_ZYX}")
    suffix = suffix_of(path.name)
    if suffix is None or suffix not in writable_suffixes():
        raise OutputError(
            "images of this kind cannot be written",
            where=path,
            remedy=f"use one of {', '.join(writable_suffixes())}",
        )
    with atomic_path(path) as unfinished:
        with_settings(format_of_suffix(suffix), settings).write_volume(unfinished, array_CZYX, geometry)


def _format(path: Path, settings: FormatSettings) -> ImageFormat:
    if not (path.is_file() or path.is_dir()):
        raise missing_image(path)
    if (not_downloaded := placeholder_image(path)) is not None:
        raise not_downloaded
    found = find_format(path)
    if found is None:
        raise ImageError(
            "is a folder without DICOM slices" if path.is_dir() else "is not an image of a known kind",
            where=path,
            remedy=f"use one of these kinds: {', '.join(image_suffixes())}, or a folder of DICOM slices",
            code="E-IMAGE-FORMAT",
        )
    if path.is_file() and path.stat().st_size == 0:
        raise damage_error(path, "it is empty (0 bytes)")
    return with_settings(found, settings)


def _read(
    path: Path, *, as_float32: bool, spacing: Triple | None, formats: FormatSettings, is_label: bool = False
) -> Volume:
    found = _format(path, formats)
    # Numbers beyond float32 become infinite; what uses the voxels rejects those, with a message of its own.
    with translate_read_error(path, found.title), np.errstate(over="ignore"):
        if is_label:
            volume = found.read_label_volume(path, **_spacing_argument(found, spacing))
        else:
            volume = found.read_volume(path, as_float32=as_float32, **_spacing_argument(found, spacing))
        volume = replace(volume, geometry=_in_mm(volume.geometry, spacing))
        check_grid(path, volume.array_CZYX.shape[0], volume.geometry)
        if as_float32 and volume.array_CZYX.dtype != np.float32:
            volume = replace(volume, array_CZYX=volume.array_CZYX.astype(np.float32))
    return volume


def _spacing_argument(found: ImageFormat, spacing: Triple | None) -> dict[str, Any]:
    return {"spacing": spacing} if found.takes_spacing and spacing is not None else {}


def _in_mm(geometry: Geometry, spacing: Triple | None) -> Geometry:
    """Set the spacing of an image whose format has none, if the user has given it."""
    return geometry.with_spacing(spacing) if geometry.unit == "pixel" and spacing is not None else geometry


def _integers(values: NDArray[Any], path: Path) -> NDArray[np.integer[Any]]:
    if np.issubdtype(values.dtype, np.bool_):
        return values.astype(np.uint8)
    if np.issubdtype(values.dtype, np.integer):
        return values
    whole = np.rint(values)
    # a stored slope leaves rounding noise (0.9999999); anything more is interpolation
    with np.errstate(invalid="ignore"):  # of infinities
        wrong = ~(np.abs(values - whole) <= _ROUNDING) | (np.abs(whole) > _MAX_LABEL)
    if wrong.any():
        found = np.unique(values[wrong])
        examples = ", ".join(f"{v:g}" for v in found[:4].tolist())
        remedy = "export the label map again without interpolation (nearest neighbour), as integers"
        if len(found) > MAX_CLASSES:
            remedy = f"make sure that this is a label map: {len(found)} values are as many as an image has; or {remedy}"
        raise ImageError(
            f"label values must be integers; {int(wrong.sum())} voxels are not (for example {examples})",
            where=path,
            remedy=remedy,
            code="E-IMAGE-VALUES",
        )
    return np.asarray(whole.astype(smallest_integer(whole)))
