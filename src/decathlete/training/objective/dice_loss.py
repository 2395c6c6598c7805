"""Dice plus a loss of each voxel: the base of nnU-Net's loss and its variants.

Shapes: B batch, K outputs of the network, F structures that count for the Dice, then 2 or 3 spatial axes.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from decathlete.core.registry import ComponentSettings
from decathlete.training.objective.losses import LossContext
from decathlete.training.objective.structure_loss import StructureLoss, mean_over_valid, sum_over_ranks

SMOOTH = 1e-5
LEAST_SIZE = 1e-8
"""Least denominator of a Dice: without smoothing, a structure that is nowhere would have an undefined one."""


class DiceCompoundLoss(StructureLoss):
    """(1 - Dice) + cross entropy; for regions (sigmoid outputs) 1 - Dice and binary cross entropy per region.

    The Dice leaves out the background. Voxels labelled ``IGNORE_INDEX`` count nowhere. A class absent from the batch
    adds a constant: its Dice is about 0 whatever the network says, and its gradient about 0 (as in nnU-Net).

    In the background of cases where classes were not annotated, the marginal loss of Shi et al. (Medical Image Analysis
    70, 101979, 2021) is used: cross entropy of the summed probability of the background and of these classes, which
    the Dice leaves out there.

    While gradients are recorded, batch-Dice sums and voxel counts are taken over all ranks.
    """

    class Settings(ComponentSettings):
        batch_dice: bool = True
        """One Dice over all patches of the global batch, steadier for small structures; else one per patch."""
        smooth: float = Field(default=SMOOTH, ge=0)
        """Number added to the Dice's numerator and denominator."""

    def __init__(self, settings: Settings, context: LossContext) -> None:
        super().__init__(settings, context)
        self.batch_dice = settings.batch_dice
        self.smooth = settings.smooth

    def forward(self, logits_BK: Tensor, label_B: Tensor) -> Tensor:
        """See :class:`~decathlete.training.objective.losses.Loss`."""
        dice, entropy = self.terms(logits_BK, label_B)
        return dice + entropy

    def terms(self, logits_BK: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
        """1 - mean Dice (0..1), and the mean loss of the voxels (nats)."""
        valid_B = self.valid(label_B)
        compare = self._compare_classes if self.exclusive else self._compare_regions
        probabilities_BF, truth_BF, entropy = compare(logits_BK, label_B, valid_B)
        return self._dice(probabilities_BF, truth_BF, self.known(label_B)), entropy

    def voxel_loss(self, entropy: Tensor) -> Tensor:
        """Return the loss of each voxel from its cross entropy ``-log p``, p the probability of the truth."""
        return entropy

    def _compare_classes(
        self, logits_BK: Tensor, label_B: Tensor, valid_B: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        log_BK = functional.log_softmax(logits_BK, dim=1)
        entropy_B = self.voxel_loss(-self.log_truth(log_BK, label_B))
        return log_BK[:, 1:].exp(), self.truth(label_B), mean_over_valid(entropy_B, valid_B)

    def _compare_regions(
        self, logits_BK: Tensor, label_B: Tensor, valid_B: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        truth_BF = self.truth(label_B)
        entropy_BF = functional.binary_cross_entropy_with_logits(logits_BK, truth_BF.float(), reduction="none")
        loss_BF = self.voxel_loss(entropy_BF)
        if self.labels.unannotated:
            return logits_BK.sigmoid(), truth_BF, mean_over_valid(loss_BF, self.known(label_B))
        return logits_BK.sigmoid(), truth_BF, mean_over_valid(loss_BF.mean(dim=1), valid_B)

    def _dice(self, probabilities_BF: Tensor, truth_BF: Tensor, known_BF: Tensor | None) -> Tensor:
        """1 - the mean Dice over structures (and over samples, unless ``batch_dice``)."""
        if known_BF is not None:
            probabilities_BF = probabilities_BF * known_BF
        space = tuple(range(2, truth_BF.ndim))
        axes = (0, *space) if self.batch_dice else space
        both = (probabilities_BF * truth_BF).sum(axes)
        sums = torch.stack([both, probabilities_BF.sum(axes), truth_BF.sum(axes, dtype=both.dtype)])
        if self.batch_dice:
            sums = sum_over_ranks(sums)
        both, predicted, true = sums.unbind()
        mean: Tensor = ((2 * both + self.smooth) / (predicted + true + self.smooth).clamp(min=LEAST_SIZE)).mean()
        return 1 - mean
