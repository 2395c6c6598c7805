"""Remove small connected components of a structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from decathlete.inference.output.postprocessing import POSTPROCESSING, PostprocessingSettings
from decathlete.inference.output.postprocessing._components import Connectivity, label_components


@POSTPROCESSING.register("remove_small")
class RemoveSmall:
    """Remove connected components of a structure that are smaller than a volume."""

    class Settings(PostprocessingSettings):
        min_volume_ml: float = Field(default=1.0, gt=0, allow_inf_nan=False)
        """Smallest volume of a component that stays, mL."""
        connectivity: Connectivity = 26
        """Neighbours that connect a voxel: 6 (faces), 18 (also edges) or 26 (also corners)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __call__(self, mask_ZYX: NDArray[np.bool_], voxel_volume_mm3: float) -> NDArray[np.bool_]:
        """Return the components that are large enough."""
        components_ZYX, counts = label_components(mask_ZYX, self.settings.connectivity)
        stays = counts * (voxel_volume_mm3 / 1000) >= self.settings.min_volume_ml
        return np.asarray(stays[components_ZYX])
