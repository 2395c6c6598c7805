"""Keep the largest connected component of a structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decathlete.inference.output.postprocessing import POSTPROCESSING, PostprocessingSettings
from decathlete.inference.output.postprocessing._components import Connectivity, label_components


@POSTPROCESSING.register("keep_largest_component")
class KeepLargestComponent:
    """Remove every connected component of a structure but the largest; of equal ones the first stays."""

    class Settings(PostprocessingSettings):
        connectivity: Connectivity = 26
        """Neighbours that connect a voxel: 6 (faces), 18 (also edges) or 26 (also corners)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __call__(self, mask_ZYX: NDArray[np.bool_], voxel_volume_mm3: float) -> NDArray[np.bool_]:  # noqa: ARG002
        """Return the largest component."""
        components_ZYX, counts = label_components(mask_ZYX, self.settings.connectivity)
        return np.asarray(components_ZYX == counts.argmax()) & mask_ZYX
