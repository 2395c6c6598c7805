"""Intersection over union (Jaccard, New Phytologist 11, 37-50, 1912)."""

from __future__ import annotations

from decathlete.evaluation.mask_pair import MaskPair
from decathlete.evaluation.metrics import METRICS, Metric


@METRICS.register("iou")
class IntersectionOverUnion(Metric):
    """Intersection over union: |P and T| / |P or T| of prediction P and truth T, 0..1."""

    title = "IoU"
    if_one_empty = 0.0
    in_headline = False  # of one structure, it orders cases as Dice does

    def __call__(self, pair: MaskPair) -> float:
        counts = pair.overlap
        return counts.n_both / (counts.n_prediction + counts.n_truth - counts.n_both)
