"""Random morphological operations on the masks of a cascade's previous stage."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from decathlete.augmentation.transforms import TRANSFORMS
from decathlete.augmentation.transforms._masks import MaskSettings, MaskTransform

Radius = Annotated[int, Field(ge=1, le=32)]
_POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}


@TRANSFORMS.register("mask_morphology")
class MaskMorphology(MaskTransform):
    """Dilate, erode, open or close the previous stage's masks (cascades only)."""

    class Settings(MaskSettings):
        probability: float = Field(default=0.4, ge=0, le=1, description="Probability that a sample is changed.")
        radius: tuple[Radius, Radius] = (1, 6)
        """Smallest and largest half edge of the structuring box, voxels."""

    settings: Settings

    def change(self, mask_ZYX: Tensor, random: np.random.Generator) -> Tensor:
        """Apply one of the four operations, with a box of random size."""
        low, high = self.settings.radius
        radius = int(random.integers(low, max(low, high) + 1))
        operation = ("dilate", "erode", "open", "close")[int(random.integers(4))]
        if operation == "dilate":
            return self._dilate(mask_ZYX, radius)
        if operation == "erode":
            return self._erode(mask_ZYX, radius)
        if operation == "open":
            return self._dilate(self._erode(mask_ZYX, radius), radius)
        return self._erode(self._dilate(mask_ZYX, radius), radius)

    def _dilate(self, mask_ZYX: Tensor, radius: int) -> Tensor:
        """Dilate axis by axis: a box is the product of lines. Coarse slices do not grow into their neighbours."""
        dims = mask_ZYX.ndim
        out = mask_ZYX[None, None]
        for axis in range(int(self.patch.in_plane), dims):
            kernel = tuple(2 * radius + 1 if a == axis else 1 for a in range(dims))
            padding = tuple(radius if a == axis else 0 for a in range(dims))
            out = _POOL[dims](out, kernel, stride=1, padding=padding)
        return out[0, 0]

    def _erode(self, mask_ZYX: Tensor, radius: int) -> Tensor:
        return 1 - self._dilate(1 - mask_ZYX, radius)
