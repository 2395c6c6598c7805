"""The predicted and the true mask of one structure, and what several metrics need to know of them."""

from __future__ import annotations

from functools import cached_property

from decathlete.core.geometry import Triple
from decathlete.evaluation.overlap import Mask, Overlap, count_overlap
from decathlete.evaluation.surface import SurfaceDistances, measure_surface_distances


class MaskPair:
    """Two masks on one grid; intermediate results are computed when a metric first asks for them, and shared.

    Attributes:
        prediction_ZYX, truth_ZYX: masks; they hold every voxel of the structure, and not necessarily the whole grid of
            the file.
        spacing_ZYX: mm.
        voxel_volume_mm3: of one voxel (the product of the spacings, unless the grid is sheared).
    """

    def __init__(
        self,
        prediction_ZYX: Mask,
        truth_ZYX: Mask,
        *,
        spacing_ZYX: Triple = (1.0, 1.0, 1.0),
        voxel_volume_mm3: float | None = None,
    ) -> None:
        self.prediction_ZYX = prediction_ZYX
        self.truth_ZYX = truth_ZYX
        self.spacing_ZYX = spacing_ZYX
        z, y, x = spacing_ZYX
        self.voxel_volume_mm3 = z * y * x if voxel_volume_mm3 is None else voxel_volume_mm3

    @cached_property
    def overlap(self) -> Overlap:
        """Voxel counts of each mask and of both together."""
        return count_overlap(self.prediction_ZYX, self.truth_ZYX)

    @cached_property
    def surface_distances(self) -> SurfaceDistances:
        """Distances between the surfaces, both ways; only where both masks have a voxel.

        Raises:
            ValueError: a mask is empty.
        """
        if not (self.overlap.n_prediction and self.overlap.n_truth):
            raise ValueError("an empty mask has no surface")
        return measure_surface_distances(self.prediction_ZYX, self.truth_ZYX, self.spacing_ZYX)
