"""An image that is ready for the networks, and its finished segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.geometry import Geometry
from decathlete.inference.output.probabilities import ProbabilityArray, ProbabilityStore
from decathlete.preprocessing.prepared import PreparedCase, Restoration


@dataclass(frozen=True, kw_only=True)
class PreparedInput:
    """An image that is ready for the networks.

    Attributes:
        geometry: grid of the image.
        cases: the image as each plan of the predictor prepares it.
        previous: of cascades: the image as the plan of the previous stage prepares it; ``None`` for other plans. Empty:
            no plan is a cascade's.
        warnings: properties of the image outside the range of the training data, and transforms that disagree.
    """

    geometry: Geometry
    cases: tuple[PreparedCase, ...]
    warnings: tuple[str, ...]
    previous: tuple[PreviousInput | None, ...] = ()

    def previous_of(self, index: int) -> PreviousInput | None:
        """Return the input of the previous stage of plan number ``index``, if it is a cascade's."""
        return self.previous[index] if self.previous else None


@dataclass(frozen=True, kw_only=True)
class PreviousInput:
    """An image that is ready for the previous stage of a cascade.

    Attributes:
        case: as its plan prepares it.
        restoration: how the second stage's plan prepares the image.
    """

    case: PreparedCase
    restoration: Restoration


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A segmentation on the image's own grid.

    Attributes:
        label_ZYX: label values as in the files of the training dataset.
        geometry: grid of the image.
        volumes_ml: structure (class or region) -> volume, mL; empty if the image has no spacing (unit ``pixel``).
        voxels: structure -> number of voxels.
        warnings: properties of the image outside the range of the training data (do not trust such a prediction), and a
            qform and a sform that disagree (both are kept; the prediction overlays the image by either).
        seconds: from the prepared image to the finished label map; of batches shared by several images, its share.
        probabilities: 0..1, of each class (background first) or region, if they were requested.
    """

    label_ZYX: NDArray[np.integer[Any]]
    geometry: Geometry
    volumes_ml: dict[str, float]
    voxels: dict[str, int]
    warnings: tuple[str, ...]
    seconds: float
    probabilities: ProbabilityStore | None = None

    @property
    def probabilities_KZYX(self) -> NDArray[np.float32] | None:
        """The probabilities as a float32 array, if they are in memory."""
        return self.probabilities.array_KZYX if isinstance(self.probabilities, ProbabilityArray) else None
