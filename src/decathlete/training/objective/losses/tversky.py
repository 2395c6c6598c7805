"""Tversky loss (Salehi et al., MLMI 2017): Dice with separate weights of false positives and false negatives."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from decathlete.core.registry import ComponentSettings
from decathlete.training.objective.losses import LOSSES, LossContext
from decathlete.training.objective.structure_loss import StructureLoss


@LOSSES.register("tversky")
class TverskyLoss(StructureLoss):
    """1 - mean Tversky index of the structures over the global batch; equal weights of 0.5 are the Dice."""

    supports_partial_labels = True

    class Settings(ComponentSettings):
        alpha: float = Field(default=0.3, ge=0, le=10)
        """Weight of false positives."""
        beta: float = Field(default=0.7, ge=0, le=10)
        """Weight of false negatives; higher for structures that are missed."""
        smooth: float = Field(default=1e-5, gt=0)
        """Number added to numerator and denominator of the index."""

    def __init__(self, settings: Settings, context: LossContext) -> None:
        super().__init__(settings, context)
        self.alpha, self.beta, self.smooth = settings.alpha, settings.beta, settings.smooth

    def index(self, logits_BK: Tensor, label_B: Tensor) -> Tensor:
        """Tversky index of each structure, 0..1, (F,)."""
        shared_F, predicted_F, true_F = self.overlap(logits_BK, label_B)
        wrong_F = self.alpha * (predicted_F - shared_F) + self.beta * (true_F - shared_F)
        return (shared_F + self.smooth) / (shared_F + wrong_F + self.smooth)

    def forward(self, logits_BK: Tensor, label_B: Tensor) -> Tensor:
        """See :class:`~decathlete.training.objective.losses.Loss`."""
        return 1 - self.index(logits_BK, label_B).mean()
