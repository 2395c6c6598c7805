"""Dice + cross entropy with deep supervision: the loss of nnU-Net (Isensee et al. 2021), in float32 throughout.

Shapes: B batch, K outputs of the network, F outputs that count for the Dice (all but the background; every region),
then 2 or 3 spatial axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional

from decathlete.core.labels import IGNORE_INDEX, LabelSet
from decathlete.networks.precision import no_autocast
from decathlete.training.distributed.collectives import SumOverRanks, world_size

SMOOTH = 1e-5
FOCAL_GAMMA = 2.0

Term = Literal["cross_entropy", "focal"]


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """A loss and what it is made of.

    Attributes:
        total: to differentiate; Dice + cross entropy over all heads, weighted.
        dice: 1 - mean Dice of the finest head, 0..1, without gradient.
        cross_entropy: (or focal) of the finest head, nats, without gradient.
    """

    total: Tensor
    dice: Tensor
    cross_entropy: Tensor


def supervision_weights(heads: int) -> tuple[float, ...]:
    """Weights of the heads, finest first: 1, 1/2, 1/4, ..., scaled to the sum 1."""
    halves = [0.5**i for i in range(heads)]
    return tuple(w / sum(halves) for w in halves)


class SegmentationLoss(nn.Module):
    """(1 - Dice) + cross entropy; for regions (sigmoid outputs) 1 - Dice and binary cross entropy per region.

    The Dice leaves out the background. Voxels labelled :data:`IGNORE_INDEX` count nowhere. A class absent from the
    batch adds a constant: its Dice is about 0 whatever the network says, and its gradient about 0 (as in nnU-Net).

    While gradients are recorded, batch-Dice sums and voxel counts are taken over all ranks, so that the mean of the
    ranks' gradients, which DDP forms, is that of one process with all their patches. Every rank must then call the
    loss equally often.

    Args:
        labels: exclusive classes (softmax), or regions (sigmoid).
        heads: outputs of the network in training.
        batch_dice: Dice of the whole batch's sums, steadier for small structures; else the mean of each sample's.
        term: what is added to the Dice; ``focal`` (Lin et al. 2017, gamma 2) plays down voxels that are easy.
        smooth: added to the Dice's numerator and denominator.
    """

    def __init__(
        self,
        labels: LabelSet,
        heads: int,
        *,
        batch_dice: bool = True,
        term: Term = "cross_entropy",
        smooth: float = SMOOTH,
    ) -> None:
        super().__init__()
        self.weights = supervision_weights(heads)
        self.batch_dice = batch_dice
        self.gamma = FOCAL_GAMMA if term == "focal" else 0.0
        self.smooth = smooth
        self.has_ignore = labels.ignore is not None
        self.members_RI: Tensor | None
        self.register_buffer("members_RI", _region_members(labels), persistent=False)

    def forward(self, outputs: Tensor | Sequence[Tensor], label_B: Tensor) -> LossTerms:
        """The loss of a batch.

        Args:
            outputs: logits of each head, finest first, each (batch, K, *spatial / an integer per axis), any float
                type; or the finest alone.
            label_B: class indices (batch, *spatial), uint8, ``IGNORE_INDEX`` where there is no truth.
        """
        heads = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        weights = self.weights if len(heads) > 1 else (1.0,)
        with no_autocast(label_B.device):
            parts = [self._head(logits.float(), _downsampled(label_B, logits.shape[2:])) for logits in heads]
        total = torch.stack([w * (dice + entropy) for w, (dice, entropy) in zip(weights, parts, strict=True)]).sum()
        dice, entropy = parts[0]
        return LossTerms(total=total, dice=dice.detach(), cross_entropy=entropy.detach())

    def _head(self, logits_BK: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
        valid_B = label_B != IGNORE_INDEX if self.has_ignore else None
        if self.members_RI is None:
            probabilities_BF, truth_BF, entropy = self._exclusive(logits_BK, label_B, valid_B)
        else:
            probabilities_BF, truth_BF, entropy = self._regions(logits_BK, label_B, valid_B, self.members_RI)
        return self._dice(probabilities_BF, truth_BF, valid_B), entropy

    def _exclusive(self, logits_BK: Tensor, label_B: Tensor, valid_B: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        log_BK = functional.log_softmax(logits_BK, dim=1)
        index_B = label_B.long()
        if valid_B is not None:
            index_B = index_B * valid_B
        entropy_B = self._focused(-log_BK.gather(1, index_B.unsqueeze(1)).squeeze(1))
        classes_F = torch.arange(1, logits_BK.shape[1], device=label_B.device, dtype=label_B.dtype)
        truth_BF = label_B.unsqueeze(1) == classes_F.view(1, -1, *[1] * (label_B.ndim - 1))
        return log_BK[:, 1:].exp(), truth_BF, self._mean(entropy_B, valid_B)

    def _regions(
        self, logits_BK: Tensor, label_B: Tensor, valid_B: Tensor | None, members_RI: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        truth_BF = members_RI[:, label_B.long()].transpose(0, 1)
        entropy_BF = functional.binary_cross_entropy_with_logits(logits_BK, truth_BF.float(), reduction="none")
        return logits_BK.sigmoid(), truth_BF, self._mean(self._focused(entropy_BF).mean(dim=1), valid_B)

    def _focused(self, entropy: Tensor) -> Tensor:
        """``(1 - p)^gamma * -log p`` from ``-log p``, p the probability of the truth."""
        return entropy if self.gamma == 0 else (-torch.expm1(-entropy)) ** self.gamma * entropy

    def _mean(self, entropy_B: Tensor, valid_B: Tensor | None) -> Tensor:
        """Over voxels with a truth. Ranks differ in how many they have: each divides by the mean of their counts."""
        if valid_B is None:
            return entropy_B.mean()
        count = valid_B.sum().to(entropy_B.dtype)
        if _joined():
            dist.all_reduce(count)
            count = count / world_size()
        return torch.where(valid_B, entropy_B, 0.0).sum() / count.clamp(min=1e-6)

    def _dice(self, probabilities_BF: Tensor, truth_BF: Tensor, valid_B: Tensor | None) -> Tensor:
        """1 - the mean Dice over classes (and over samples, unless ``batch_dice``)."""
        if valid_B is not None:
            probabilities_BF = probabilities_BF * valid_B.unsqueeze(1)
        space = tuple(range(2, truth_BF.ndim))
        axes = (0, *space) if self.batch_dice else space
        both = (probabilities_BF * truth_BF).sum(axes)
        sums = torch.stack([both, probabilities_BF.sum(axes), truth_BF.sum(axes, dtype=both.dtype)])
        if self.batch_dice and _joined():
            sums = SumOverRanks.apply(sums)  # type: ignore[no-untyped-call]
        both, predicted, true = sums.unbind()
        mean: Tensor = ((2 * both + self.smooth) / (predicted + true + self.smooth)).mean()
        return 1 - mean


def _joined() -> bool:
    """Whether sums are taken over ranks: only in training steps, which all ranks make together."""
    return torch.is_grad_enabled() and world_size() > 1


def _downsampled(label_B: Tensor, shape: Sequence[int]) -> Tensor:
    """Every n-th voxel of each spatial axis: where a strided convolution's outputs are centred."""
    steps = [have // want for have, want in zip(label_B.shape[1:], shape, strict=True)]
    return label_B[(slice(None), *(slice(None, None, step) for step in steps))]


def _region_members(labels: LabelSet) -> Tensor | None:
    """Whether class index i belongs to region r, (regions, 256); ``None`` for exclusive classes."""
    if not labels.regions:
        return None
    members_RI = torch.zeros(len(labels.regions), IGNORE_INDEX + 1, dtype=torch.bool)
    for row, region in zip(members_RI, labels.regions, strict=True):
        row[[labels.values.index(value) for value in region.values]] = True
    return members_RI
