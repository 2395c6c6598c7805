"""Images to segment: files of any known format, or arrays with their grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry, Shape, Triple
from decathlete.errors import OptionError
from decathlete.io.images import Image, read_channels
from decathlete.io.reading import Reading

Source = Path | str | Sequence[Path | str] | NDArray[Any]
"""A file (or a DICOM folder), one file per channel, or an array."""


def as_image(
    source: Source,
    *,
    spacing: Triple | None = None,
    geometry: Geometry | None = None,
    image_formats: Mapping[str, Mapping[str, Any]] | None = None,
    n_channels: int | None = None,
) -> Image:
    """Read files, or combine an array with its grid.

    Args:
        spacing: z, y, x in mm, of an array, or of files that do not contain their spacing.
        geometry: of an array, instead of ``spacing``.
        image_formats: settings of image formats that change how files are read, by the name of the format.
        n_channels: of the model, see :func:`~decathlete.io.images.read_channels`.

    Raises:
        OptionError: an array of another shape or without its spacing, a file with a geometry, or a setting of an image
            format without effect.
    """
    reading = Reading().revised(spacing, image_formats)
    if isinstance(source, np.ndarray):
        reading.check(())
        return _array_image(source, spacing, geometry)
    if geometry is not None:
        raise OptionError("a file contains its own geometry", remedy="use geometry with arrays only")
    paths = [Path(source)] if isinstance(source, (str, Path)) else [Path(path) for path in source]
    reading.check(paths)
    return read_channels(paths, spacing=reading.spacing, formats=reading.formats, n_channels=n_channels)


def _array_image(array: NDArray[Any], spacing: Triple | None, geometry: Geometry | None) -> Image:
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise OptionError(
            f"an array of shape {array.shape} is not an image",
            remedy="use (z, y, x), (channel, z, y, x), or (y, x) for a single slice",
        )
    image_CZYX = np.asarray(array, dtype=np.float32).reshape((1,) * (4 - array.ndim) + array.shape)
    _, z, y, x = image_CZYX.shape
    return Image(array_CZYX=image_CZYX, geometry=_array_geometry((z, y, x), spacing, geometry))


def _array_geometry(shape_ZYX: Shape, spacing: Triple | None, geometry: Geometry | None) -> Geometry:
    if geometry is not None:
        if geometry.shape_ZYX != shape_ZYX:
            raise OptionError(
                f"the geometry is for shape {geometry.shape_ZYX}, the array has {shape_ZYX}",
                remedy="use the array's own geometry",
            )
        return geometry
    if spacing is None or len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
        raise OptionError(
            "the spacing of the array is missing" if spacing is None else f"{spacing} is not a spacing",
            remedy="use spacing=(z, y, x) in mm, three positive numbers, or geometry=",
        )
    return Geometry.plain(shape_ZYX, spacing_ZYX=spacing)
