"""Pictures by imagecodecs (PNG, BMP, JPEG) and Pillow (TIFF), which the readers of Decathlete do not use for them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from robustness.views import UnsureError, View, check_spacing

_DECODERS = {".png": imagecodecs.png_decode, ".bmp": imagecodecs.bmp_decode, ".jpg": imagecodecs.jpeg8_decode}
_DESCRIPTION = 270
"""Tag of TIFF."""

_PIXEL_GRID = np.eye(4)
"""Affine of a picture, which has no spacing: neighbours are one pixel apart."""


def view(path: Path) -> View:
    """Return grey slices; colours and palettes are not judged. A TIFF has a grid if OME-XML declares it."""
    if path.suffix == ".tif":
        with Image.open(path) as image:
            description = str(image.tag_v2.get(_DESCRIPTION, ""))  # type: ignore[attr-defined]
            pages = [np.asarray(page) for page in ImageSequence.Iterator(image)]
        return View(array_CZYX=np.stack(pages)[None], affines=_ome_affines(description))
    pixels_YX = _DECODERS[path.suffix](path.read_bytes())
    if pixels_YX.ndim != 2:
        raise UnsureError("colours")
    return View(array_CZYX=pixels_YX[None, None], affines=(_PIXEL_GRID,))


def _ome_affines(description: str) -> tuple[NDArray[np.float64], ...]:
    """Return the affine of an OME-XML with lengths along all axes in its default unit, micrometres."""
    try:
        pixels = ElementTree.fromstring(description).find("{*}Image/{*}Pixels")
    except ElementTree.ParseError:
        return ()
    lengths = [] if pixels is None else [pixels.get(f"PhysicalSize{axis}") for axis in "XYZ"]
    if None in lengths or not lengths:
        return ()
    affine = np.diag([*(float(str(length)) / 1000 for length in lengths), 1.0])
    check_spacing(affine)
    return (affine,)
