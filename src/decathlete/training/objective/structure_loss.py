"""What losses share: probabilities and truth of each structure, ignored voxels, sums over ranks.

Shapes: B batch, K outputs of the network, F structures that count (every foreground class, or every region), then 2 or
3 spatial axes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

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

    def valid(self, label_B: Tensor) -> Tensor | None:
        """Voxels that have a truth, (batch, *spatial); ``None`` where the dataset has no ignore label."""
        return label_B != IGNORE_INDEX if self.has_ignore else None

    def known(self, label_B: Tensor) -> Tensor | None:
        """Whether the truth of each structure is known, (batch, F or 1, *spatial); ``None``: everywhere.

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
        """Whether each voxel belongs to each structure, (batch, F, *spatial), bool; ignored voxels to none."""
        if self.members_RI is not None:
            return self.members_RI[:, label_B.long()].transpose(0, 1)
        classes_F = torch.arange(1, self.labels.n_classes, device=label_B.device, dtype=label_B.dtype)
        return label_B.unsqueeze(1) == classes_F.view(1, -1, *[1] * (label_B.ndim - 1))


def sums_are_joint() -> bool:
    """Whether sums are taken over ranks: only in training steps, which all ranks make together."""
    return torch.is_grad_enabled() and world_size() > 1


def sum_over_ranks(sums: Tensor) -> Tensor:
    """The sum of ``sums`` over all ranks in a training step, differentiable; elsewhere ``sums``.

    The mean of the ranks' gradients, which DDP forms, is then that of one process with all their patches. Every rank
    must call the loss equally often.
    """
    if not sums_are_joint():
        return sums
    total: Tensor = SumOverRanks.apply(sums)  # type: ignore[no-untyped-call]
    return total


def mean_over_valid(loss_B: Tensor, valid_B: Tensor | None) -> Tensor:
    """Mean over voxels that have a truth. Ranks differ in how many: each divides by the mean of their counts."""
    if valid_B is None:
        return loss_B.mean()
    count = valid_B.sum().to(loss_B.dtype)
    if sums_are_joint():
        dist.all_reduce(count)
        count = count / world_size()
    return torch.where(valid_B, loss_B, 0.0).sum() / count.clamp(min=1e-6)


def _known(labels: LabelSet) -> Tensor:
    """Whether class index i says if a voxel belongs to structure f, (F, 256)."""
    known_FI = torch.ones(len(labels.structures), IGNORE_INDEX + 1, dtype=torch.bool)
    known_FI[:, IGNORE_INDEX] = labels.ignore is None
    for members in labels.unannotated:
        known_FI[:, labels.unannotated_index(members)] = torch.tensor(labels.annotated_structures(members))
    return known_FI


def _members(labels: LabelSet) -> Tensor:
    """Whether class index i belongs to region r, (regions, 256)."""
    members_RI = torch.zeros(len(labels.structures), IGNORE_INDEX + 1, dtype=torch.bool)
    for row, indices in zip(members_RI, labels.structure_indices, strict=True):
        row[list(indices)] = True
    return members_RI
