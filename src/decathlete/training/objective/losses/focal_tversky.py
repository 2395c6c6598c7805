"""Focal Tversky loss (Abraham & Khan, ISBI 2019)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from decathlete.training.objective.losses import LOSSES, LossContext
from decathlete.training.objective.losses.tversky import TverskyLoss

_LEAST = 1e-6
"""Least value of 1 - index: the slope of the root is infinite at 0."""


@LOSSES.register("focal_tversky")
class FocalTverskyLoss(TverskyLoss):
    """Mean over the structures of ``(1 - index)^(1 / gamma)``: structures that are hard to find count more."""

    supports_partial_labels = True

    class Settings(TverskyLoss.Settings):
        gamma: float = Field(default=4 / 3, ge=1, le=3)
        """Focus; 1 is the Tversky loss, and the authors use 4/3."""

    def __init__(self, settings: Settings, context: LossContext) -> None:
        super().__init__(settings, context)
        self.exponent = 1 / settings.gamma

    def forward(self, logits_BK: Tensor, label_B: Tensor) -> Tensor:
        """See :class:`~decathlete.training.objective.losses.Loss`."""
        return (1 - self.index(logits_BK, label_B)).clamp(min=_LEAST).pow(self.exponent).mean()
