"""Dice and cross entropy: the loss of nnU-Net (Isensee et al., Nature Methods 18, 203-211, 2021)."""

from __future__ import annotations

from decathlete.training.objective.dice_loss import DiceCompoundLoss
from decathlete.training.objective.losses import LOSSES


@LOSSES.register("cross_entropy")
class DiceCrossEntropyLoss(DiceCompoundLoss):
    """Sum of 1 - mean Dice and cross entropy; binary cross entropy for each region of region-based labels."""

    supports_partial_labels = True
