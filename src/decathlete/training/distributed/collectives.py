"""Collective operations over the processes of one training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Return the index of this process, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


def all_reduce_max(values: Sequence[float], device: torch.device) -> list[float]:
    """Return the maximum of each value over all processes, by one collective call."""
    return _all_reduce(values, device, distributed.ReduceOp.MAX)


def all_reduce_sum(values: Sequence[float], device: torch.device) -> list[float]:
    """Return the sum of each value over all processes, by one collective call."""
    return _all_reduce(values, device, distributed.ReduceOp.SUM)


class SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks. Each rank's loss depends on it, so its gradient is a sum over ranks too."""

    @staticmethod
    def forward(ctx: object, local: Tensor) -> Tensor:  # noqa: ARG004
        """Return a new tensor, the same on all ranks."""
        total = local.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        """Return the sum of all ranks' gradients."""
        (gradient,) = gradients
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


def _all_reduce(
    values: Sequence[float], device: torch.device, operation: distributed.ReduceOp.RedOpType
) -> list[float]:
    if world_size() == 1:
        return list(values)
    tensor = torch.tensor(list(values), dtype=torch.float64, device=device)
    distributed.all_reduce(tensor, op=operation)
    return [float(v) for v in tensor.tolist()]
