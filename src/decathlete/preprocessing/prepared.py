"""What preparation makes: the arrays a network sees, and the exact way back to the file's own grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from decathlete.core.geometry import PIXEL, AxisTransform, Box, Geometry, Shape, Triple
from decathlete.core.schema import Schema


class Restoration(Schema):
    """The way of one image through preparation, so that a prediction can go back along it.

    stored grid (``geometry``) -> ``axes`` (reorientation and axis order) -> ``crop`` -> resampled to ``shape``.

    Attributes:
        crop: box in working axis order.
        shape: of the prepared image, working order.
        separate_axis: the axis resampled by nearest neighbour (anisotropic data), working order, if any.
        logits_axis: the same on the way back, where the network's grid is the one that is left: not the same where both
            grids are anisotropic, along different axes. The same unless given.
    """

    geometry: Geometry
    axes: AxisTransform
    crop: Box
    shape: Shape
    separate_axis: int | None = None
    logits_axis: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_logits_axis(cls, given: Any) -> Any:
        if isinstance(given, dict) and "logits_axis" not in given:
            return given | {"logits_axis": given.get("separate_axis")}
        return given

    def staying(self, spacing: Triple) -> Restoration:
        """Return the restoration of an image that stays on its prepared grid, of ``spacing`` (working order)."""
        plain = Geometry.plain(self.shape, spacing_ZYX=spacing)
        if self.geometry.unit == PIXEL:
            plain = plain.revised(header=plain.header.revised(spatial_unit=PIXEL))
        return Restoration(
            geometry=plain,
            axes=AxisTransform(),
            crop=Box(start=(0, 0, 0), stop=self.shape),
            shape=self.shape,
        )


@dataclass(frozen=True, kw_only=True)
class PreparedCase:
    """One case, ready for the network.

    Attributes:
        image_CZYX: float32, normalised, working axis order, on the target spacing; a foreground channel comes last.
        label_ZYX: uint8 class indices (``IGNORE_INDEX`` where there is no truth), ``None`` for prediction.
        foreground: class index -> flat indices (int64) into ``label_ZYX`` of at most ``FOREGROUND_SAMPLES`` voxels of
            it, drawn evenly and seeded by the case's id; classes that are absent have no entry. If some voxels are
            ignored, the entry ``IGNORE_INDEX`` holds voxels that are not ignored.
    """

    case_id: str
    image_CZYX: NDArray[np.float32]
    label_ZYX: NDArray[np.uint8] | None
    foreground: dict[int, NDArray[np.int64]]
    restoration: Restoration
