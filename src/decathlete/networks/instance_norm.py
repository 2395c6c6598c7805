"""Instance normalisation with torch's fastest kernels for each device and memory layout."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

EPS = 1e-5
_ALL_GRADIENTS = [True, True, True]


class InstanceNorm(nn.Module):
    """Instance normalisation with scale and shift, for any number of spatial axes (Ulyanov et al. 2016).

    Unlike ``nn.InstanceNorm3d`` it accepts a feature map of a single voxel, too (its normalised value is 0): a
    patch may be one voxel wide at the bottleneck.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_BC: Tensor) -> Tensor:
        """Return the normalised maps, with the input's shape, type and layout (on CUDA always contiguous)."""
        if x_BC.device.type == "cpu" and not torch.compiler.is_compiling():  # exports need the operation itself
            if x_BC.requires_grad and _is_channels_last(x_BC):
                y_BC: Tensor = _BackwardByImage.apply(x_BC, self.weight, self.bias)  # type: ignore[no-untyped-call]
                return y_BC
            # the same result by a faster kernel
            return torch.group_norm(x_BC, self.weight.shape[0], self.weight, self.bias, EPS)
        fast = torch.backends.cudnn.enabled
        return torch.instance_norm(x_BC, self.weight, self.bias, None, None, True, 0.0, EPS, fast)


def _channels_last(x_BC: Tensor) -> torch.memory_format:
    return torch.channels_last_3d if x_BC.ndim == 5 else torch.channels_last


def _is_channels_last(x_BC: Tensor) -> bool:
    return not x_BC.is_contiguous() and x_BC.is_contiguous(memory_format=_channels_last(x_BC))


class _BackwardByImage(torch.autograd.Function):
    """Group normalisation's kernel forward; batch normalisation's kernel backward, one sample at a time.

    For one sample the gradients are the same sums. With channels last only the second kernel is vectorised over
    channels; the first takes 20 times as long in bfloat16, twice as long in float32.
    """

    @staticmethod
    def forward(ctx: Any, x_BC: Tensor, weight_C: Tensor, bias_C: Tensor) -> Tensor:
        n, channels = x_BC.shape[:2]
        y_BC, mean_BC, inverse_BC = torch.native_group_norm(
            x_BC, weight_C, bias_C, n, channels, math.prod(x_BC.shape[2:]), channels, EPS
        )
        ctx.save_for_backward(x_BC, weight_C, mean_BC, inverse_BC)
        return y_BC

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_BC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_BC, weight_C, mean_BC, inverse_BC = ctx.saved_tensors  # the inverse of the standard deviation
        of_x_BC = torch.empty_like(x_BC)
        of_weight_BC, of_bias_BC = torch.empty_like(mean_BC), torch.empty_like(mean_BC)
        gradient_BC = gradient_BC.contiguous(memory_format=_channels_last(x_BC))
        for i in range(len(x_BC)):
            of_x_BC[i : i + 1], of_weight_BC[i], of_bias_BC[i] = torch.ops.aten.native_batch_norm_backward(
                gradient_BC[i : i + 1],
                x_BC[i : i + 1],
                weight_C,
                None,
                None,
                mean_BC[i],
                inverse_BC[i],
                True,
                EPS,
                _ALL_GRADIENTS,
            )
        return of_x_BC, of_weight_BC.sum(0), of_bias_BC.sum(0)
