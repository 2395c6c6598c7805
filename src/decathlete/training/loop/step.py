"""The parts of a training step that queue work on the device without synchronising.

That they ask nothing of the device is tested on torch's ``meta`` device, where asking is an error. A training asks once
a step, for what :func:`pack_loss_and_finite` holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Batch = tuple[Tensor, Tensor]
"""image_BC (batch, channel, spatial axes) and label_B (batch, spatial axes), on the training device."""


def make_gradients(
    network: nn.Module,
    loss: Callable[[Any, Tensor], Tensor],
    optimizer: Optimizer,
    batch: Batch,
    *,
    backward: Callable[[Tensor], object] = Tensor.backward,
) -> Tensor:
    """Run forward and backward; return the detached loss. ``backward`` may scale it."""
    image_BC, label_B = batch
    optimizer.zero_grad(set_to_none=True)
    total = loss(network(image_BC), label_B)
    backward(total)
    return total.detach()


def clip_gradients(optimizer: Optimizer, limit: float) -> Tensor:
    """Clip the global gradient norm to ``limit`` (0: no limit); return the norm before, a scalar."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return torch.nn.utils.clip_grad_norm_(weights, limit or float("inf"))


def pack_loss_and_finite(loss: Tensor, norm: Tensor | None) -> Tensor:
    """Pack the loss and whether (1 or 0) it and the gradient norm are finite, shape (2,): one transfer for both."""
    finite = torch.isfinite(loss)
    if norm is not None:
        finite = finite & torch.isfinite(norm)
    return torch.stack([loss, finite.to(loss.dtype)])
