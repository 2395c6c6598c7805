"""Fill holes of a structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from decathlete.inference.output.postprocessing import POSTPROCESSING, PostprocessingSettings


@POSTPROCESSING.register("fill_holes")
class FillHoles:
    """Fill what a structure encloses: voxels that no path over faces connects with the border of the image.

    Of exclusive classes, only background is filled: a tumour inside an organ stays a tumour.
    """

    class Settings(PostprocessingSettings):
        pass

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __call__(self, mask_ZYX: NDArray[np.bool_], voxel_volume_mm3: float) -> NDArray[np.bool_]:  # noqa: ARG002
        """Return the mask without holes."""
        if mask_ZYX.size == 1:
            return mask_ZYX
        # Padded, so that everything outside is one component; a single slice stays one, or its holes would be open.
        around = [(0, 0) if size == 1 else (1, 1) for size in mask_ZYX.shape]
        outside_ZYX, _ = ndimage.label(~np.pad(mask_ZYX, around))
        inner = tuple(slice(before, size + before) for (before, _), size in zip(around, mask_ZYX.shape, strict=True))
        return np.asarray(outside_ZYX[inner] != outside_ZYX[0, 0, 0])
