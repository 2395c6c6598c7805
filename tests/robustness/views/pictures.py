"""Pictures by imagecodecs (PNG, BMP, JPEG) and Pillow (TIFF), which the readers of Decathlete do not use for them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from robustness.views import UnsureError, View, check_spacing

_DECODERS = {".png": imagecodecs.png_decode, ".bmp": imagecodecs.bmp_decode, ".jpg": imagecodecs.jpeg8_decode}
_DESCRIPTION, _X_RESOLUTION, _Y_RESOLUTION = 270, 282, 283
"""Tags of TIFF."""
_PALETTE = 3
"""Colour type of PNG."""

_PIXEL_GRID = np.eye(4)
"""Affine of a picture, which has no spacing: neighbours are one pixel apart."""


def view(path: Path) -> View:
    """Return grey or coloured slices. A TIFF has a grid if OME-XML or ImageJ's description declares it."""
    if path.suffix == ".tif":
        with Image.open(path) as image:
            affines = _tiff_affines(image.tag_v2)  # type: ignore[attr-defined]
            pages = [np.asarray(page) for page in ImageSequence.Iterator(image)]
        if pages[0].ndim != 2:
            raise UnsureError("colours")
        return View(array_CZYX=np.stack(pages)[None], affines=affines)
    content = path.read_bytes()
    pixels = _DECODERS[path.suffix](content)
    if pixels.ndim == 2:
        return View(array_CZYX=pixels[None, None], affines=(_PIXEL_GRID,))
    if pixels.shape[-1] != 3 or path.suffix != ".png":
        raise UnsureError("alpha, or colours that decoders round")
    if content[25] == _PALETTE and (pixels == pixels[..., :1]).all():  # a palette of greys, unless others are not used
        pixels = pixels[..., :1]
    return View(array_CZYX=np.moveaxis(pixels, -1, 0)[:, None], affines=(_PIXEL_GRID,))


def _tiff_affines(tags: Any) -> tuple[NDArray[np.float64], ...]:
    description = str(tags.get(_DESCRIPTION, ""))
    if description.startswith("ImageJ="):
        return _imagej_affines(description, tags)
    return _ome_affines(description) if "<" in description else (_PIXEL_GRID,)


def _imagej_affines(description: str, tags: Any) -> tuple[NDArray[np.float64], ...]:
    fields = dict(line.partition("=")[::2] for line in description.splitlines())
    resolution = [tags.get(tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
    if fields.get("unit") != "mm" or "spacing" not in fields or not all(resolution):
        return ()
    affine = np.diag([*(1 / float(n) for n in resolution), float(fields["spacing"]), 1.0])
    check_spacing(affine)
    return (affine,)


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
