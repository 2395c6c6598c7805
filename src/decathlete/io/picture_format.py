"""Formats of 2D pictures (PNG, BMP, JPEG): checked here, decoded by Pillow. They have no spacing."""

from __future__ import annotations

from abc import abstractmethod
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry
from decathlete.core.lazy_import import lazy_import
from decathlete.errors import ImageError, OutputError
from decathlete.io.formats import ImageFormat
from decathlete.io.headers.picture import PictureHeader, is_grey_palette
from decathlete.io.volumes import Volume

pillow = lazy_import("PIL.Image")


class PictureFormat(ImageFormat):
    """Base of these formats: one slice, grey, RGB or with a palette.

    An image with a palette of colours has three channels; a label map with a palette has the indices as its values.
    """

    is_picture = True
    keeps_grid = False
    written_axes = 2
    written_types: ClassVar[tuple[str, ...]] = ("uint8", "uint16")

    @abstractmethod
    def read_content(self, path: Path) -> tuple[PictureHeader, bytes]:
        """Check a file, and return its header and what Pillow may decode."""

    def read_header(self, path: Path) -> tuple[int, Geometry]:
        """Read the header, and check the file."""
        header, _ = self.read_content(path)
        return header.channels, Geometry.pixels((1, header.height, header.width))

    def read_volume(self, path: Path, *, as_float32: bool = False) -> Volume:  # noqa: ARG002 - stored as integers
        """Intensities: grey as one channel, colours as red, green and blue."""
        header, content = self.read_content(path)
        pixels_YX = self.decode(path, header, content)
        return _volume(spread_palette(pixels_YX, header.palette) if header.kind == "palette" else pixels_YX)

    def read_label_volume(self, path: Path, **spacing: Any) -> Volume:  # noqa: ARG002 - without spacing
        """Label values: grey values, or the indices of a palette. Grey that was saved as RGB is one channel."""
        header, content = self.read_content(path)
        pixels_YX = self.decode(path, header, content)
        return _volume(single_grey(pixels_YX) if pixels_YX.ndim == 3 else pixels_YX)

    def holds_integers(self, path: Path) -> bool:
        """Always."""
        self.read_content(path)
        return True

    def decode(self, path: Path, header: PictureHeader, content: bytes) -> NDArray[Any]:  # noqa: ARG002 - for subclasses
        """Return the samples as stored: (Y, X), or (Y, X, 3) for RGB."""
        with pillow.open(BytesIO(content), formats=[type(self).title]) as picture:
            if header.kind == "rgb" and picture.mode != "RGB":
                raise ValueError(f"decoded as {picture.mode} instead of RGB")
            pixels_YX = np.asarray(picture)
        if pixels_YX.dtype == np.bool_:
            return pixels_YX.astype(np.uint8)
        if header.kind == "palette" and picture.mode != "P" and header.bits < 8:
            raise ValueError(f"a palette with {header.bits} bits was decoded as {picture.mode}")
        if header.kind == "grey" and header.bits < 8:  # Pillow scales these to 0..255
            return np.asarray(pixels_YX // (255 // (2**header.bits - 1)))
        return pixels_YX

    def write_volume(self, path: Path, array_CZYX: NDArray[Any], geometry: Geometry) -> None:  # noqa: ARG002
        """Write one slice: grey with 8 or 16 bits, or RGB with 8 bits."""
        pixels_YX = picture_array(path, array_CZYX, type(self).title, self.written_types)
        pillow.fromarray(pixels_YX).save(path, format=type(self).title)


def spread_palette(indices: NDArray[Any], palette: tuple[tuple[int, int, int], ...]) -> NDArray[np.uint8]:
    """Return the colour of each index along a new last axis: red, green, blue, or grey alone if all are grey.

    Raises:
        ValueError: an index is beyond the palette.
    """
    if indices.size and indices.max() >= len(palette):
        raise ValueError(f"a pixel has the colour {indices.max()} of a palette with {len(palette)} colours")
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = palette
    spread: NDArray[np.uint8] = colours[indices]
    return spread[..., : 1 if is_grey_palette(palette) else 3]


def single_grey(array: NDArray[Any]) -> NDArray[Any]:
    """Return grey that was saved as RGB with one channel; the last axis is that of the channels."""
    return array[..., :1] if array.shape[-1] == 3 and (array == array[..., :1]).all() else array


def lossy_label_error(path: Path, what: str) -> ImageError:
    """Return the error of a label map in a format that does not keep values; ``what``: e.g. ``"a JPEG"``."""
    return ImageError(
        f"is {what}, whose compression changes label values",
        where=path,
        remedy="export the label map again without loss, as PNG or TIFF with deflate or LZW",
        code="E-IMAGE-LOSSY",
    )


def picture_array(path: Path, array_CZYX: NDArray[Any], title: str, types: tuple[str, ...]) -> NDArray[Any]:
    """Return (Y, X) or (Y, X, 3) of a type that a picture can have.

    Raises:
        OutputError: there are several slices, or values or channels that a picture cannot hold.
    """
    n_channels, n_slices = array_CZYX.shape[:2]
    whole = array_CZYX.dtype.kind in "iu" and array_CZYX.min() >= 0
    dtype = next((t for t in types if whole and array_CZYX.max() <= np.iinfo(t).max), None)
    if n_slices != 1 or dtype is None or n_channels not in (1, 3) or (n_channels == 3 and dtype != "uint8"):
        raise OutputError(
            f"{title} cannot hold {n_channels} channels, {n_slices} slices and {array_CZYX.dtype} values "
            f"from {array_CZYX.min():g} to {array_CZYX.max():g}",
            where=path,
            remedy="use .nii.gz, or .tif",
        )
    slice_CYX = array_CZYX[:, 0].astype(dtype)
    return np.ascontiguousarray(slice_CYX[0] if n_channels == 1 else np.moveaxis(slice_CYX, 0, -1))


def _volume(pixels_YX: NDArray[Any]) -> Volume:
    array_CYX = pixels_YX[None] if pixels_YX.ndim == 2 else np.moveaxis(pixels_YX, -1, 0)
    _, height, width = array_CYX.shape
    return Volume(array_CZYX=array_CYX[:, None], geometry=Geometry.pixels((1, height, width)))
