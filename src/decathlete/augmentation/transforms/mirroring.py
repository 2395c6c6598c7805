"""Flips along the axes of the patch."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from decathlete.augmentation.transforms import TRANSFORMS, Patch, SpatialChange, SpatialTransform, TransformSettings
from decathlete.errors import OptionError
from decathlete.planning.network_spec import Axes


def _distinct_axes(axes: Axes) -> Axes:
    if len(set(axes)) != len(axes) or any(a not in range(3) for a in axes):
        raise ValueError(f"must be distinct axes among 0, 1, 2; they are {axes}")
    return axes


@TRANSFORMS.register("mirroring")
class Mirroring(SpatialTransform):
    """Flip along each axis at random, each on its own.

    Raises:
        OptionError: the settings name an axis that the patch does not have.
    """

    class Settings(TransformSettings):
        """Axes that are flipped."""

        probability: float = Field(default=0.5, ge=0, le=1, description="Probability that an axis is flipped.")
        axes: Annotated[Axes, AfterValidator(_distinct_axes)] | None = None
        """Spatial axes (0 is the first of the patch); unset: all."""

    def __init__(self, settings: Settings, patch: Patch) -> None:
        super().__init__(settings, patch)
        self._dims = len(patch.size)
        self._axes = frozenset(range(self._dims) if settings.axes is None else settings.axes)
        if max(self._axes, default=0) >= self._dims:
            raise OptionError(
                f"mirroring.axes {settings.axes} name an axis that a {self._dims}D patch does not have",
                remedy=f"choose among {tuple(range(self._dims))}, or leave it unset for all axes",
            )

    def draw(self, random: np.random.Generator) -> SpatialChange | None:
        """Draw for each axis whether it is flipped: there is no probability for the sample as a whole."""
        return self.change(random)

    def change(self, random: np.random.Generator) -> SpatialChange:
        """Draw for each axis whether it is flipped."""
        uniform, chance = random.random(3).tolist(), self.settings.chance
        return SpatialChange(flips=tuple(axis in self._axes and uniform[axis] < chance for axis in range(self._dims)))
