"""Pictures by imagecodecs (PNG, BMP, JPEG) and Pillow (TIFF), which the readers of Decathlete do not use for them."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image, ImageSequence

from robustness.views import UnsureError, View

_DECODERS = {".png": imagecodecs.png_decode, ".bmp": imagecodecs.bmp_decode, ".jpg": imagecodecs.jpeg8_decode}


def view(path: Path) -> View:
    """Return grey slices; colours and palettes are not judged."""
    if path.suffix == ".tif":
        with Image.open(path) as image:
            pages = [np.asarray(page) for page in ImageSequence.Iterator(image)]
        return View(array_CZYX=np.stack(pages)[None])
    pixels_YX = _DECODERS[path.suffix](path.read_bytes())
    if pixels_YX.ndim != 2:
        raise UnsureError("colours")
    return View(array_CZYX=pixels_YX[None, None])
