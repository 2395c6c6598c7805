"""Steps of post-processing: their protocol and registry. A model names its steps and records where they come from."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from decathlete.core.registry import ComponentSettings, Registry


class PostprocessingSettings(ComponentSettings):
    """Settings that every step has; a step's nested ``Settings`` derive from it."""

    structures: tuple[str, ...] = ()
    """Names of the structures (classes or regions) to change, in this order; empty: all."""
    together: bool = False
    """Whether their union is changed as one mask, from which voxels can only be removed."""


class Postprocessing(Protocol):
    """A step, made by ``cls(settings)`` with its nested ``Settings``."""

    def __call__(self, mask_ZYX: NDArray[np.bool_], voxel_volume_mm3: float) -> NDArray[np.bool_]:
        """Return the changed mask of a structure.

        Args:
            mask_ZYX: of the structure, on the image's own grid, cut to the box that holds it and a border of one voxel
                (none at the image's edge); it must not be modified. An axis has size 1 only if the image has.
            voxel_volume_mm3: volume of a voxel, mm³.

        Returns:
            A mask of the same shape.
        """
        ...


POSTPROCESSING: Registry[Postprocessing] = Registry(
    "postprocessing", package="decathlete.inference.output.postprocessing"
)
"""Built-in steps and those of plug-ins."""
