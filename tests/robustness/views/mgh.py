"""MGH and MGZ by nibabel, and by FreeSurfer's rule where a file declares no grid."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np

from robustness.views import View, check_spacing

_HAS_GRID_AT = 28
_DEFAULT_STEPS = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""FreeSurfer's steps of files without a grid: to the left, down, forward. The default of nibabel is the transpose."""


def view(path: Path) -> View:
    """Return voxels and affine."""
    with gzip.open(path) if path.suffix == ".mgz" else path.open("rb") as stream:
        (has_grid,) = struct.unpack_from(">h", stream.read(_HAS_GRID_AT + 2), _HAS_GRID_AT)
        stream.seek(0)
        image = nibabel.MGHImage.from_stream(stream)
        array = np.asarray(image.dataobj)
    affine = image.affine
    if not has_grid:
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = _DEFAULT_STEPS, -_DEFAULT_STEPS @ np.array(array.shape[:3]) / 2
    check_spacing(affine)
    return View(array_CZYX=array.reshape(*array.shape[:3], -1).transpose(3, 2, 1, 0), affines=(affine,))
