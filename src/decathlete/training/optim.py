"""The optimizers, built from the config."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from decathlete.training.config import TrainConfig


def build_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> Optimizer:
    """AdamW, Adam, or SGD with Nesterov momentum; the learning rate is set before each step by the schedule."""
    rate, decay = config.peak_learning_rate, config.decay
    if config.optimizer == "sgd":
        momentum = config.momentum
        return SGD(parameters, lr=rate, weight_decay=decay, momentum=momentum, nesterov=momentum > 0)
    kind = AdamW if config.optimizer == "adamw" else Adam
    return kind(parameters, lr=rate, weight_decay=decay)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """One rate for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
