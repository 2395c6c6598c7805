"""Deep supervision: the loss of every head of a network, the coarse ones with less weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from decathlete.networks.precision import no_autocast
from decathlete.training.objective.losses import Loss


class DeepSupervision(nn.Module):
    """The weighted sum of a loss over all heads, in float32 throughout.

    Args:
        loss: of one head; a module.
        heads: outputs of the network in training.
    """

    def __init__(self, loss: Loss, heads: int) -> None:
        super().__init__()
        self.loss = loss
        self.weights = supervision_weights(heads)

    def forward(self, outputs: Tensor | Sequence[Tensor], label_B: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            outputs: logits of each head, finest first, each (batch, K, *spatial / an integer per axis), any float
                type; or the finest alone, which then has the weight 1.
            label_B: class indices (batch, *spatial), uint8, ``IGNORE_INDEX`` where there is no truth.
        """
        heads = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        weights = self.weights if len(heads) > 1 else (1.0,)
        with no_autocast(label_B.device):
            parts = [self.loss(logits.float(), downsample(label_B, logits.shape[2:])) for logits in heads]
        return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum()


def supervision_weights(heads: int) -> tuple[float, ...]:
    """Weights of the heads, finest first: 1, 1/2, 1/4, ..., scaled to the sum 1."""
    halves = [0.5**i for i in range(heads)]
    return tuple(w / sum(halves) for w in halves)


def downsample(label_B: Tensor, shape: Sequence[int]) -> Tensor:
    """Return every n-th voxel of each spatial axis: where a strided convolution's outputs are centred."""
    steps = [have // want for have, want in zip(label_B.shape[1:], shape, strict=True)]
    return label_B[(slice(None), *(slice(None, None, step) for step in steps))]
