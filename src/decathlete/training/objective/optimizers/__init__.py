"""Optimizers: how gradients change the weights. Each module is one optimizer, registered by its own name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from pydantic import Field

from decathlete.core.registry import ComponentSettings, Registry

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer as TorchOptimizer


class OptimizerSettings(ComponentSettings):
    """The settings that every optimizer has; each gives its own defaults."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate; the schedule lowers it."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Strength with which weights are drawn to 0 in each step."""
    gradient_clip: float = Field(default=0.0, ge=0)
    """Maximum norm of the gradient; longer gradients are shortened to it. 0: no clipping."""


class Optimizer(Protocol):
    """An optimizer is made with its settings, which derive from :class:`OptimizerSettings`."""

    def build(self, weights: Iterable[nn.Parameter], *, fused: bool | None) -> TorchOptimizer:
        """Build the optimizer of ``weights``.

        Args:
            fused: step all weights in one kernel, for optimizers that can; ``None``: torch's own choice.
        """
        ...


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer", package=__name__)
