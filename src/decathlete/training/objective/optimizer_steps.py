"""What a training does with a torch optimizer, whichever it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from decathlete.training.objective.optimizers import OPTIMIZERS, OptimizerSettings

FUSED_DEVICES = ("cuda",)
"""Devices on which one kernel steps all weights. Torch has such kernels for CPUs and MPS too: not measured there."""


def build_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> Optimizer:
    """Build the optimizer of ``settings``, fused where the weights are on a GPU that supports it.

    The learning rate is set before each step by the schedule.
    """
    weights = list(parameters)
    fused = all(weight.device.type in FUSED_DEVICES for weight in weights) or None
    return OPTIMIZERS.build(settings).build(weights, fused=fused)


def restore_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load ``state``, which another kind of device may have saved: whether steps are fused stays as it is."""
    groups = [
        saved | {"fused": own["fused"]} if "fused" in own else saved
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})


def has_fused_unscaling(optimizer: Optimizer) -> bool:
    """Return whether the optimizer's step undoes loss scaling, as fused ones do: nothing has done it before."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set one rate for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
