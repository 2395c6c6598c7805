"""Averaged weights: a second network that follows the trained one (Polyak & Juditsky 1992)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

EMA_WINDOW_SHARE = 0.03
"""Longest averaging window, share of the training's steps."""


class EMA:
    """An exponential moving average of a network's parameters; buffers are copied.

    Not an ``nn.Module``, so that the averaged network is neither trained, nor wrapped for distributed training.

    Attributes:
        network: the averaged network, in eval mode, without gradients.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float) -> None:
        """Average ``network`` in: ``average = decay * average + (1 - decay) * network``."""
        averages: list[Tensor] = list(self.network.parameters())
        weights: list[Tensor] = [p.detach() for p in network.parameters()]
        torch._foreach_lerp_(averages, weights, 1.0 - decay)
        for average, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            average.copy_(buffer)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights, under the trained network's names."""
        return self.network.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up an average where it was."""
        self.network.load_state_dict(state)


def ema_decay(step: int, *, progress: float, limit: float) -> float:
    """Return the decay of the averaged weights after ``step`` steps (the last one included).

    Its window (1 / (1 - decay), in steps) is at most ``limit``'s, at most ``EMA_WINDOW_SHARE`` of the steps that
    the whole training is expected to make (``step / progress``), and at most about a ninth of the steps made, so
    that neither the first weights nor a short budget spoil the average.
    """
    if limit <= 0.0 or step <= 1:
        return 0.0
    expected = step / min(max(progress, 1e-6), 1.0)
    window = min(1.0 / (1.0 - limit), EMA_WINDOW_SHARE * expected, (10 + step) / 9)
    return 1.0 - 1.0 / max(window, 1.0)
