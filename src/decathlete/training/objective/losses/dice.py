"""Soft Dice alone (Milletari et al., 3DV 2016), without cross entropy."""

from __future__ import annotations

from torch import Tensor

from decathlete.training.objective.dice_loss import DiceCompoundLoss
from decathlete.training.objective.losses import LOSSES


@LOSSES.register("dice")
class DiceLoss(DiceCompoundLoss):
    """1 - mean Dice of the structures; the background is left out."""

    supports_partial_labels = True

    def forward(self, logits_BK: Tensor, label_B: Tensor) -> Tensor:
        """See :class:`~decathlete.training.objective.losses.Loss`."""
        dice, _ = self.terms(logits_BK, label_B)
        return dice
