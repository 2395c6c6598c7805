"""Top-k cross entropy (Wu et al., arXiv 1605.06885): the voxels with the greatest loss alone."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from decathlete.core.registry import ComponentSettings
from decathlete.training.objective.losses import LOSSES, LossContext
from decathlete.training.objective.structure_loss import StructureLoss


@LOSSES.register("topk")
class TopKLoss(StructureLoss):
    """Mean cross entropy of the voxels with the greatest cross entropy; of regions the mean binary one."""

    supports_partial_labels = True

    class Settings(ComponentSettings):
        share: float = Field(default=0.1, gt=0, le=1)
        """Share of the voxels with a truth that count; 1 is the cross entropy."""

    def __init__(self, settings: Settings, context: LossContext) -> None:
        super().__init__(settings, context)
        self.share = settings.share

    def forward(self, logits_BK: Tensor, label_B: Tensor) -> Tensor:
        """See :class:`~decathlete.training.objective.losses.Loss`."""
        entropy = self.voxel_entropy(logits_BK, label_B).flatten()
        valid_B = self.valid(label_B)
        if valid_B is not None:
            entropy = torch.where(valid_B.flatten(), entropy, 0.0)
        greatest = entropy.topk(math.ceil(self.share * entropy.numel())).values
        if valid_B is None:
            return greatest.mean()
        # How many count is known on the device alone: the host must not wait for it.
        n_counted = torch.ceil(self.share * valid_B.sum())
        counted = torch.arange(len(greatest), device=greatest.device) < n_counted
        return torch.where(counted, greatest, 0.0).sum() / n_counted.clamp(min=1)
