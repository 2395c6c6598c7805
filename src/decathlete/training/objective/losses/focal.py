"""Dice and focal loss (Lin et al., ICCV 2017)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from decathlete.training.objective.dice_loss import DiceCompoundLoss
from decathlete.training.objective.losses import LOSSES, LossContext

_LEAST_MISS = 1e-6
"""Least 1 - p of a voxel in the weight, p the probability of the truth."""


@LOSSES.register("focal")
class DiceFocalLoss(DiceCompoundLoss):
    """Sum of 1 - mean Dice and focal loss, which gives less weight to voxels that are easy."""

    supports_partial_labels = True

    class Settings(DiceCompoundLoss.Settings):
        gamma: float = Field(default=2.0, ge=0)
        """Exponent of the weight ``(1 - p)^gamma``, p the probability of the truth; 0 is the cross entropy."""

    def __init__(self, settings: Settings, context: LossContext) -> None:
        super().__init__(settings, context)
        self.gamma = settings.gamma

    def voxel_loss(self, entropy: Tensor) -> Tensor:
        """``(1 - p)^gamma * -log p`` from ``-log p``."""
        if self.gamma == 0:
            return entropy
        # Rounding makes the sum of probabilities slightly larger than 1; and the power of 0 has no finite gradient.
        miss = (-torch.expm1(-entropy)).clamp(min=_LEAST_MISS)
        return miss**self.gamma * entropy
