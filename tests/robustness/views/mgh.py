"""MGH and MGZ by nibabel."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from robustness.views import View, check_spacing


def view(path: Path) -> View:
    """Return voxels and affine."""
    image = nibabel.MGHImage.from_filename(path)
    array = np.asarray(image.dataobj)
    check_spacing(image.affine)
    return View(array_CZYX=array.reshape(*array.shape[:3], -1).transpose(3, 2, 1, 0), affines=(image.affine,))
