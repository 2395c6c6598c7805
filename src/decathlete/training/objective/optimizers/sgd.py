"""Stochastic gradient descent with Nesterov momentum (Sutskever et al., ICML 2013)."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field
from torch import nn
from torch.optim import SGD, Optimizer

from decathlete.training.objective.optimizers import OPTIMIZERS, OptimizerSettings


@OPTIMIZERS.register("sgd")
class SgdOptimizer:
    """Stochastic gradient descent with Nesterov momentum."""

    class Settings(OptimizerSettings):
        learning_rate: float = Field(default=1e-1, gt=0)
        """Peak learning rate; the schedule lowers it."""
        weight_decay: float = Field(default=3e-5, ge=0)
        """Strength with which weights are drawn to 0 in each step."""
        gradient_clip: float = Field(default=12.0, ge=0)
        """Maximum norm of the gradient; longer gradients are shortened to it. 0: no clipping."""
        momentum: float = Field(default=0.9, ge=0, lt=1)
        """SGD momentum. 0: plain gradient descent."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def build(self, weights: Iterable[nn.Parameter], *, fused: bool | None) -> Optimizer:
        """See :class:`~decathlete.training.objective.optimizers.Optimizer`."""
        s = self.settings
        return SGD(
            weights,
            lr=s.learning_rate,
            weight_decay=s.weight_decay,
            momentum=s.momentum,
            nesterov=s.momentum > 0,
            fused=fused,
        )
