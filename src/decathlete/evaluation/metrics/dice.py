"""Dice coefficient (Dice, Ecology 26, 297-302, 1945)."""

from __future__ import annotations

from decathlete.evaluation.mask_pair import MaskPair
from decathlete.evaluation.metrics import METRICS, Metric


@METRICS.register("dice")
class Dice(Metric):
    """Dice coefficient: 2 |P and T| / (|P| + |T|) of prediction P and truth T, 0..1."""

    title = "Dice"
    if_one_empty = 0.0
    absent_value = 1.0

    def __call__(self, pair: MaskPair) -> float:
        counts = pair.overlap
        return 2 * counts.n_both / (counts.n_prediction + counts.n_truth)
