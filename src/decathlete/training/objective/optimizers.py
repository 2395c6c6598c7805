"""The optimizers, built from the config."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from decathlete.training.config import TrainConfig

FUSING = ("cuda",)
"""Devices on which one kernel steps all weights. Torch has such kernels for CPUs and MPS too: not measured there."""


def build_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> Optimizer:
    """AdamW, Adam, or SGD with Nesterov momentum, fused where the weights lie on a GPU that can.

    The learning rate is set before each step by the schedule.
    """
    weights = list(parameters)
    fused = all(weight.device.type in FUSING for weight in weights) or None  # None: torch's own choice
    rate, decay = config.peak_learning_rate, config.decay
    if config.optimizer == "sgd":
        momentum = config.momentum
        return SGD(weights, lr=rate, weight_decay=decay, momentum=momentum, nesterov=momentum > 0, fused=fused)
    kind = AdamW if config.optimizer == "adamw" else Adam
    return kind(weights, lr=rate, weight_decay=decay, fused=fused)


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Go on from ``state``, which another kind of device may have left: whether steps are fused is not taken over."""
    groups = [
        saved | {"fused": own["fused"]}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})


def unscales_itself(optimizer: Optimizer) -> bool:
    """Whether the optimizer's step undoes loss scaling (fused ones do), so that nothing has done it before."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """One rate for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
