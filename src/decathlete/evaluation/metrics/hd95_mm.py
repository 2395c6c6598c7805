"""95th percentile of the Hausdorff distance."""

from __future__ import annotations

import math

import numpy as np

from decathlete.evaluation.mask_pair import MaskPair
from decathlete.evaluation.metrics import METRICS, Metric


@METRICS.register("hd95_mm")
class HausdorffDistance95(Metric):
    """HD95: the larger of the two directed 95th percentiles of surface distances (linear between ranks), mm."""

    title = "HD95"
    unit = "mm"
    direction = "lower"
    perfect = 0.0
    limits = (0.0, math.inf)
    digits = 2

    def __call__(self, pair: MaskPair) -> float:
        return max(float(np.percentile(d, 95)) for d in pair.surface_distances.both_directions)
