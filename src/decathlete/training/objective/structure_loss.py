"""What losses share: probabilities and truth of each structure, ignored voxels, sums over ranks.

Shapes: B batch, K outputs of the network, F structures that count (every foreground class, or every region), then 2 or
3 spatial axes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional

from decathlete.core.labels import IGNORE_INDEX, LabelSet
from decathlete.training.distributed.collectives import SumOverRanks, world_size
from decathlete.training.objective.losses import LossContext


class StructureLoss(nn.Module):
    """Base of losses that compare each structure's probability with its truth.

    Attributes:
        supports_partial_labels: whether the loss leaves out what was not annotated (:meth:`known`); others are rejected
            for datasets with partially annotated cases. A loss declares it in its own class.

    Args:
        settings: of the loss.
        context: see :class:`~decathlete.training.objective.losses.LossContext`.
    """

    supports_partial_labels: ClassVar[bool] = False

    def __init__(self, settings: Any, context: LossContext) -> None:  # noqa: ARG002 - every loss is called with both
        super().__init__()
        self.labels = context.labels
        self.exclusive = context.labels.activation == "softmax"
        self.has_ignore = context.labels.ignore is not None
        self.members_RI: Tensor | None
        self.register_buffer("members_RI", None if self.exclusive else _members(context.labels), persistent=False)
        self.known_FI: Tensor | None
        partial = bool(context.labels.unannotated)
        self.register_buffer("known_FI", _known(context.labels) if partial else None, persistent=False)
        self.impossible_KI: Tensor | None
        marginal = partial and self.exclusive
        self.register_buffer("impossible_KI", _impossible(context.labels) if marginal else None, persistent=False)

    def valid(self, label_B: Tensor) -> Tensor | None:
        """Return the voxels that have a truth, (batch, *spatial); ``None`` where the dataset has no ignore label."""
        return label_B != IGNORE_INDEX if self.has_ignore else None

    def known(self, label_B: Tensor) -> Tensor | None:
        """Return whether the truth of each structure is known, (batch, F or 1, *spatial); ``None``: everywhere.

        A structure is unknown in voxels that are ignored, and in the background of cases where it was not annotated.
        """
        if self.known_FI is not None:
            return self.known_FI[:, label_B.long()].transpose(0, 1)
        valid_B = self.valid(label_B)
        return None if valid_B is None else valid_B.unsqueeze(1)

    def probabilities(self, logits_BK: Tensor) -> Tensor:
        """Probability of each structure, (batch, F, *spatial)."""
        return logits_BK.softmax(dim=1)[:, 1:] if self.exclusive else logits_BK.sigmoid()

    def truth(self, label_B: Tensor) -> Tensor:
        """Return whether each voxel belongs to each structure, (batch, F, *spatial), bool; ignored voxels to none."""
        if self.members_RI is not None:
            return self.members_RI[:, label_B.long()].transpose(0, 1)
        classes_F = torch.arange(1, self.labels.n_classes, device=label_B.device, dtype=label_B.dtype)
        return label_B.unsqueeze(1) == classes_F.view(1, -1, *[1] * (label_B.ndim - 1))

    def overlap(self, logits_BK: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the global batch for each structure: shared, predicted and true, (F,), in voxels."""
        probability_BF, truth_BF = self.probabilities(logits_BK), self.truth(label_B)
        return overlap_sums(probability_BF, truth_BF, self.known(label_B))

    def voxel_entropy(self, logits_BK: Tensor, label_B: Tensor) -> Tensor:
        """Cross entropy of each voxel, (batch, *spatial), nats; of regions the mean of their binary ones.

        The value of ignored voxels has no meaning. Where classes were not annotated, it is the marginal cross entropy
        (see :class:`~decathlete.training.objective.dice_loss.DiceCompoundLoss`), or the mean over the other regions.
        """
        if not self.exclusive:
            return self._region_entropy(logits_BK, label_B)
        if self.impossible_KI is not None:
            return -self.log_truth(functional.log_softmax(logits_BK, dim=1), label_B)
        return functional.cross_entropy(logits_BK, self._valid_index(label_B), reduction="none")

    def log_truth(self, log_BK: Tensor, label_B: Tensor) -> Tensor:
        """Return the log probability of each voxel's truth, (batch, *spatial), from that of every class.

        In the background of cases where classes were not annotated, it is that of the background and these classes
        together. The value of ignored voxels has no meaning.
        """
        if self.impossible_KI is not None:
            apply = _MarginalLogProbability.apply
            log_B: Tensor = apply(log_BK, label_B, self.impossible_KI)  # type: ignore[no-untyped-call]
            return log_B
        return log_BK.gather(1, self._valid_index(label_B).unsqueeze(1)).squeeze(1)

    def _valid_index(self, label_B: Tensor) -> Tensor:
        """Return class indices, int64; 0 in ignored voxels."""
        valid_B = self.valid(label_B)
        return label_B.long() if valid_B is None else label_B.long() * valid_B

    def _region_entropy(self, logits_BK: Tensor, label_B: Tensor) -> Tensor:
        truth_BF = self.truth(label_B).float()
        entropy_BF = functional.binary_cross_entropy_with_logits(logits_BK, truth_BF, reduction="none")
        known_BF = self.known(label_B) if self.labels.unannotated else None
        if known_BF is None:
            return entropy_BF.mean(dim=1)
        return torch.where(known_BF, entropy_BF, 0.0).sum(dim=1) / known_BF.sum(dim=1).clamp(min=1)


class _MarginalLogProbability(torch.autograd.Function):
    """Log of the summed probability of the classes that each voxel may have.

    The backward pass computes the masked table of all classes again, because a saved copy is as large as the logits.
    """

    @staticmethod
    def forward(ctx: Any, log_BK: Tensor, label_B: Tensor, impossible_KI: Tensor) -> Tensor:
        """Return the log of the sum, (B, *spatial).

        Args:
            log_BK: log probability of each class.
            label_B: indices of prepared label maps.
            impossible_KI: whether a voxel with index i cannot have class k, (K, 256).
        """
        log_B = _mask_impossible(log_BK, label_B, impossible_KI).logsumexp(dim=1)
        ctx.save_for_backward(log_BK, label_B, impossible_KI, log_B)
        return log_B

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of each class: its share of the sum, times that of the sum."""
        log_BK, label_B, impossible_KI, log_B = ctx.saved_tensors
        share_BK = _mask_impossible(log_BK, label_B, impossible_KI).sub_(log_B.unsqueeze(1)).exp_()
        return share_BK.mul_(gradients[0].unsqueeze(1)), None, None


def _mask_impossible(log_BK: Tensor, label_B: Tensor, impossible_KI: Tensor) -> Tensor:
    """Return a copy of ``log_BK`` with -inf for the classes that a voxel cannot have."""
    return log_BK.masked_fill(impossible_KI[:, label_B.long()].transpose(0, 1), -torch.inf)


def overlap_sums(probability_BF: Tensor, truth_BF: Tensor, known_BF: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over batch, space and ranks: of probability times truth, of the probability, and of the truth, (F,).

    Args:
        known_BF: where the truth of each structure is known, (batch, F or 1, *spatial); ``None``: everywhere.
    """
    if known_BF is not None:
        probability_BF = probability_BF * known_BF
    axes = (0, *range(2, truth_BF.ndim))
    both = (probability_BF * truth_BF).sum(axes)
    sums = torch.stack([both, probability_BF.sum(axes), truth_BF.sum(axes, dtype=both.dtype)])
    shared_F, predicted_F, true_F = sum_over_ranks(sums).unbind()
    return shared_F, predicted_F, true_F


def sums_are_joint() -> bool:
    """Return whether sums are taken over ranks: only in training steps, which all ranks make together."""
    return torch.is_grad_enabled() and world_size() > 1


def sum_over_ranks(sums: Tensor) -> Tensor:
    """Return the sum of ``sums`` over all ranks in a training step, differentiable; elsewhere ``sums``.

    The mean of the ranks' gradients, which DDP forms, is then that of one process with all their patches. Every rank
    must call the loss equally often.
    """
    if not sums_are_joint():
        return sums
    total: Tensor = SumOverRanks.apply(sums)  # type: ignore[no-untyped-call]
    return total


def mean_over_valid(loss_B: Tensor, valid_B: Tensor | None) -> Tensor:
    """Return the mean over voxels that have a truth. Every rank divides by the mean of all ranks' counts."""
    if valid_B is None:
        return loss_B.mean()
    return torch.where(valid_B, loss_B, 0.0).sum() / mean_over_ranks(valid_B.sum().to(loss_B.dtype)).clamp(min=1e-6)


def mean_over_ranks(count: Tensor) -> Tensor:
    """Return the mean over ranks of a count, in a training step; elsewhere ``count``."""
    if not sums_are_joint():
        return count
    count = count.clone()
    dist.all_reduce(count)
    return count / world_size()


def _known(labels: LabelSet) -> Tensor:
    """Return whether class index i says if a voxel belongs to structure f, (F, 256)."""
    known_FI = torch.ones(len(labels.structures), IGNORE_INDEX + 1, dtype=torch.bool)
    known_FI[:, IGNORE_INDEX] = labels.ignore is None
    for members in labels.unannotated:
        known_FI[:, labels.unannotated_index(members)] = torch.tensor(labels.annotated_structures(members))
    return known_FI


def _impossible(labels: LabelSet) -> Tensor:
    """Return whether a voxel with index i cannot have class k, (K, 256); ignored voxels can have class 0 alone."""
    impossible_KI = torch.ones(labels.n_classes, IGNORE_INDEX + 1, dtype=torch.bool)
    impossible_KI[0, labels.n_classes :] = False
    impossible_KI.fill_diagonal_(False)
    for index, possible in labels.possible_indices.items():
        impossible_KI[list(possible), index] = False
    return impossible_KI


def _members(labels: LabelSet) -> Tensor:
    """Return whether class index i belongs to region r, (regions, 256)."""
    members_RI = torch.zeros(len(labels.structures), IGNORE_INDEX + 1, dtype=torch.bool)
    for row, indices in zip(members_RI, labels.structure_indices, strict=True):
        row[list(indices)] = True
    return members_RI
