"""AdamW (Loshchilov & Hutter, ICLR 2019): Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field
from torch import nn
from torch.optim import AdamW, Optimizer

from decathlete.training.objective.optimizers import OPTIMIZERS, OptimizerSettings


@OPTIMIZERS.register("adamw")
class AdamWOptimizer:
    """AdamW (Loshchilov & Hutter, ICLR 2019): Adam with decoupled weight decay."""

    class Settings(OptimizerSettings):
        learning_rate: float = Field(default=5e-3, gt=0)
        """Peak learning rate; the schedule lowers it."""
        weight_decay: float = Field(default=1e-4, ge=0)
        """Strength with which weights are drawn to 0 in each step."""
        gradient_clip: float = Field(default=1.0, ge=0)
        """Maximum norm of the gradient; longer gradients are shortened to it. 0: no clipping."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def build(self, weights: Iterable[nn.Parameter], *, fused: bool | None) -> Optimizer:
        """See :class:`~decathlete.training.objective.optimizers.Optimizer`."""
        s = self.settings
        return AdamW(weights, lr=s.learning_rate, weight_decay=s.weight_decay, fused=fused)
