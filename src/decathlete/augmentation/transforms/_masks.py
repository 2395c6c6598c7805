"""The role of transforms that corrupt the masks of a cascade's previous stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from decathlete.augmentation.transforms import Patch, TransformSettings

if TYPE_CHECKING:
    from torch import Tensor


class MaskSettings(TransformSettings):
    """What all transforms of masks can be set to."""

    structure_probability: Annotated[
        float, Field(ge=0, le=1, description="Probability that a structure is changed, in a sample that is changed.")
    ] = 1.0


class MaskTransform(ABC):
    """A change of the masks that show the prediction of a cascade's previous stage.

    The second stage then cannot merely copy them.

    Args:
        settings: of the component.
        patch: what the transform is built for.
    """

    def __init__(self, settings: MaskSettings, patch: Patch) -> None:
        self.settings = settings
        self.patch = patch

    def __call__(self, masks_SZYX: Tensor, random: np.random.Generator) -> None:
        """Change the masks of one sample in place, or leave them as they are.

        Args:
            masks_SZYX: float32, 0 and 1, one for each structure. Masks that do not overlap do not overlap afterwards.
            random: generator of this transform for this sample alone.
        """
        if random.random() >= self.settings.chance:
            return
        exclusive = bool((masks_SZYX.sum(dim=0) <= 1).all())
        for index in random.permutation(len(masks_SZYX)).tolist():
            if random.random() >= self.settings.structure_probability:
                continue
            before_ZYX = masks_SZYX[index].clone()
            masks_SZYX[index] = self.change(before_ZYX, random)
            if exclusive:
                others = [other for other in range(len(masks_SZYX)) if other != index]
                masks_SZYX[others] *= 1 - (masks_SZYX[index] - before_ZYX).clamp(min=0)

    @abstractmethod
    def change(self, mask_ZYX: Tensor, random: np.random.Generator) -> Tensor:
        """Return the changed mask of one structure, of the same shape."""
