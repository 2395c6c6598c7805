"""Generalised Dice loss (Sudre et al., DLMIA 2017)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from decathlete.core.registry import ComponentSettings
from decathlete.training.objective.losses import LOSSES, LossContext
from decathlete.training.objective.structure_loss import StructureLoss, overlap_sums


@LOSSES.register("generalized_dice")
class GeneralizedDiceLoss(StructureLoss):
    """1 - one Dice of all classes, each weighted by the inverse of its squared volume in the batch.

    As in the paper, the background is one of the classes (regions have none). A class that the batch does not contain
    has no weight of its own.
    """

    class Settings(ComponentSettings):
        smooth: float = Field(default=1e-5, gt=0)
        """Number added to numerator and denominator, in units of the rarest class."""

    def __init__(self, settings: Settings, context: LossContext) -> None:
        super().__init__(settings, context)
        self.smooth = settings.smooth

    def forward(self, logits_BK: Tensor, label_B: Tensor) -> Tensor:
        """See :class:`~decathlete.training.objective.losses.Loss`."""
        probability_BF = logits_BK.softmax(dim=1) if self.exclusive else logits_BK.sigmoid()
        truth_BF = self.truth(label_B)
        if self.exclusive:
            truth_BF = torch.cat([(label_B == 0).unsqueeze(1), truth_BF], dim=1)
        valid_B = self.valid(label_B)
        known_BF = None if valid_B is None else valid_B.unsqueeze(1)
        shared_F, predicted_F, true_F = overlap_sums(probability_BF, truth_BF, known_BF)
        weight_F = torch.where(true_F > 0, 1 / true_F.clamp(min=1), 0.0) ** 2
        weight_F = weight_F / weight_F.max().clamp(min=1e-30)
        shared, total = (weight_F * shared_F).sum(), (weight_F * (predicted_F + true_F)).sum()
        return 1 - (2 * shared + self.smooth) / (total + self.smooth)
