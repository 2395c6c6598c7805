"""Cross entropy alone, with weights of classes and smoothing of the truth (Szegedy et al., CVPR 2016)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from decathlete.core.registry import ComponentSettings
from decathlete.errors import OptionError
from decathlete.training.objective.losses import LOSSES, LossContext
from decathlete.training.objective.structure_loss import StructureLoss, mean_over_ranks


@LOSSES.register("weighted_cross_entropy")
class WeightedCrossEntropyLoss(StructureLoss):
    """Weighted mean of the cross entropy over voxels; for regions of the binary cross entropy over regions.

    Raises:
        OptionError: there are more or fewer weights than classes.
    """

    class Settings(ComponentSettings):
        weights: tuple[float, ...] | None = None
        """Weight of each class, the background first, or of each region; unset: all equal."""
        label_smoothing: float = Field(default=0.0, ge=0, lt=1)
        """Share of the truth that is spread evenly over all classes."""

    def __init__(self, settings: Settings, context: LossContext) -> None:
        super().__init__(settings, context)
        names = [c.name for c in (context.labels.classes if self.exclusive else context.labels.structures)]
        weights = settings.weights or (1.0,) * len(names)
        if len(weights) != len(names):
            raise OptionError(
                f"loss.weights has {len(weights)} numbers for {len(names)} classes ({', '.join(names)})",
                remedy="set one number for each, in this order",
            )
        if not (min(weights) >= 0 and max(weights) > 0):
            raise OptionError(
                f"loss.weights has negative numbers, or only zeros: {', '.join(f'{w:g}' for w in weights)}",
                remedy="set positive numbers; 0 only for classes that do not count",
            )
        self.smoothing = settings.label_smoothing
        self.weight_K: Tensor
        self.register_buffer("weight_K", torch.tensor(weights), persistent=False)

    def forward(self, logits_BK: Tensor, label_B: Tensor) -> Tensor:
        """See :class:`~decathlete.training.objective.losses.Loss`."""
        weighted = self._classes if self.exclusive else self._regions
        loss_B, weight_B = weighted(logits_BK, label_B)
        valid_B = self.valid(label_B)
        if valid_B is not None:
            loss_B, weight_B = torch.where(valid_B, loss_B, 0.0), torch.where(valid_B, weight_B, 0.0)
        return loss_B.sum() / mean_over_ranks(weight_B.sum()).clamp(min=1e-6)

    def _classes(self, logits_BK: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
        index_B, valid_B = label_B.long(), self.valid(label_B)
        index_B = index_B if valid_B is None else index_B * valid_B
        loss_B = functional.cross_entropy(
            logits_BK, index_B, weight=self.weight_K, label_smoothing=self.smoothing, reduction="none"
        )
        return loss_B, self.weight_K[index_B]

    def _regions(self, logits_BK: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
        target_BF = self.truth(label_B).float() * (1 - self.smoothing) + self.smoothing / 2
        entropy_BF = functional.binary_cross_entropy_with_logits(logits_BK, target_BF, reduction="none")
        weight_F = self.weight_K.reshape(-1, *[1] * (label_B.ndim - 1))
        return (entropy_BF * weight_F).sum(dim=1), self.weight_K.sum().expand_as(label_B)
