"""The parts of a training step that only queue work for the device: tensors in, tensors out, and nothing is waited for.

That they ask nothing of the device is tested on torch's ``meta`` device, where asking is an error. A training asks once
a step, for what :func:`report` holds.
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
    """Forward and backward; the loss, a scalar without gradient. ``backward`` may scale it."""
    image_BC, label_B = batch
    optimizer.zero_grad(set_to_none=True)
    total = loss(network(image_BC), label_B)
    backward(total)
    return total.detach()


def clip_gradients(optimizer: Optimizer, limit: float) -> Tensor:
    """Shrink all gradients together to the norm ``limit`` at most (0: no limit); the norm before, a scalar."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return torch.nn.utils.clip_grad_norm_(weights, limit or float("inf"))


def pack_loss_and_finite(loss: Tensor, norm: Tensor | None) -> Tensor:
    """Loss and whether (1 or 0) it and the gradient's norm, if given, are finite: one transfer for both, (2,)."""
    finite = torch.isfinite(loss)
    if norm is not None:
        finite = finite & torch.isfinite(norm)
    return torch.stack([loss, finite.to(loss.dtype)])
