"""Normalised surface Dice (Nikolov et al., J Med Internet Res 23, e26151, 2021)."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from decathlete.core.registry import ComponentSettings
from decathlete.evaluation.mask_pair import MaskPair
from decathlete.evaluation.metrics import METRICS, Metric

# Distances are float32: a surface exactly at the tolerance must not fall out of it by rounding.
_ROUNDING = 1 + 1e-5


@METRICS.register("nsd")
class NormalizedSurfaceDice(Metric):
    """Normalised surface Dice: share of both surfaces that lies within a tolerance of the other, 0..1.

    Every surface voxel counts once, whatever patch of surface it stands for (Nikolov et al. weigh by area; on isotropic
    grids the two agree closely).
    """

    class Settings(ComponentSettings):
        tolerance_mm: float = Field(default=1.0, gt=0, allow_inf_nan=False)
        """Largest distance at which surfaces still agree, mm."""

    title = "NSD"
    if_one_empty = 0.0
    absent_value = 1.0

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.tolerance_mm = settings.tolerance_mm

    @property
    def long_title(self) -> str:
        """The title with the tolerance."""
        return f"surface Dice (NSD) at {self.tolerance_mm:g} mm"

    def __call__(self, pair: MaskPair) -> float:
        limit = self.tolerance_mm * _ROUNDING
        directed = pair.surface_distances.both_directions
        return sum(int(np.count_nonzero(d <= limit)) for d in directed) / sum(d.size for d in directed)
