"""Losses: what a training minimises. Each module is one loss, registered by its own name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from decathlete.core.labels import LabelSet
from decathlete.core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LossContext:
    """What a loss may know about the training.

    Attributes:
        labels: exclusive classes (softmax) or overlapping regions (sigmoid), and whether there is an ignore label.
    """

    labels: LabelSet


class Loss(Protocol):
    """A loss is called with its settings and a :class:`LossContext` to make it; it is a ``torch.nn.Module``.

    It is computed in float32, outside autocast. With deep supervision it is called for each head of the network.
    :class:`~decathlete.training.objective.structure_loss.StructureLoss` is a convenient base: it knows probabilities,
    truth and ignored voxels of each structure.
    """

    def __call__(self, logits_BK: Tensor, label_B: Tensor) -> Tensor:
        """Return the loss of one head.

        Args:
            logits_BK: float32, (batch, K outputs, *spatial).
            label_B: uint8 class indices, (batch, *spatial); ``IGNORE_INDEX`` (255) where there is no truth.

        Returns:
            A scalar, differentiable with respect to ``logits_BK``; finite where a batch holds no foreground, or only
            ignored voxels.
        """
        ...


LOSSES: Registry[Loss] = Registry("loss", package=__name__)
