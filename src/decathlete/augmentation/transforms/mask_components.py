"""Random removal of connected components from the masks of a cascade's previous stage."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from decathlete.augmentation.transforms import TRANSFORMS
from decathlete.augmentation.transforms._masks import MaskSettings, MaskTransform


@TRANSFORMS.register("mask_components")
class MaskComponents(MaskTransform):
    """Remove a component of the previous stage's masks, so that it has to be found again (cascades only)."""

    class Settings(MaskSettings):
        probability: float = Field(default=0.2, ge=0, le=1, description="Probability that a sample is changed.")
        largest_share: float = Field(default=0.15, gt=0, le=1)
        """Components that fill a larger share of the patch are kept."""

    settings: Settings

    def change(self, mask_ZYX: Tensor, random: np.random.Generator) -> Tensor:
        """Remove one of the components that are small enough; each is equally likely."""
        from scipy import ndimage

        labelled_ZYX, n_components = ndimage.label(mask_ZYX.cpu().numpy() > 0)
        sizes = np.bincount(labelled_ZYX.ravel())[1:]
        small = np.flatnonzero(sizes < self.settings.largest_share * labelled_ZYX.size) + 1
        if not n_components or not small.size:
            return mask_ZYX
        chosen = int(small[int(random.integers(small.size))])
        kept_ZYX = torch.from_numpy(labelled_ZYX != chosen).to(mask_ZYX.device)
        return mask_ZYX * kept_ZYX
