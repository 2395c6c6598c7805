"""MGH and MGZ by nibabel."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np

from robustness.views import MustFailError, View, check_spacing

_HAS_GRID_AT = 28


def view(path: Path) -> View:
    """Return voxels and affine; a file without a grid has no spacing."""
    with gzip.open(path) if path.suffix == ".mgz" else path.open("rb") as stream:
        (has_grid,) = struct.unpack_from(">h", stream.read(_HAS_GRID_AT + 2), _HAS_GRID_AT)
        stream.seek(0)
        image = nibabel.MGHImage.from_stream(stream)
        array = np.asarray(image.dataobj)
    if not has_grid:
        raise MustFailError("the file declares no grid")
    check_spacing(image.affine)
    return View(array_CZYX=array.reshape(*array.shape[:3], -1).transpose(3, 2, 1, 0), affines=(image.affine,))
