"""3D convolutions whose weight gradients are correct in bfloat16 on every CPU.

On CPUs with bfloat16 (AVX512-BF16, AMX) oneDNN (3.12, in torch 2.13) writes beyond its buffers when it computes the
gradient of 3D weights: with maps of 5 x 112 x 96 voxels Python crashes on AMX; with maps of two planes and a kernel of
three the gradients are wrong or not a number on both, and some calls never end. In 2D it is correct. So in bfloat16, on
every CPU, the gradient is computed plane by plane with 2D convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

Axes3 = tuple[int, int, int]
LARGE = 2**20
"""Elements of a batch of feature maps above which a copy takes longer than one call for each sample."""


class Conv3d(nn.Conv3d):
    """``nn.Conv3d`` with zero padding."""

    def forward(self, x_BCZYX: Tensor) -> Tensor:
        """Return the convolution, as ``nn.Conv3d`` does."""
        if _is_at_risk(x_BCZYX, self.weight):
            return _convolve_by_planes(self, x_BCZYX, transposed=False)
        return super().forward(x_BCZYX)


class ConvTranspose3d(nn.ConvTranspose3d):
    """``nn.ConvTranspose3d`` whose kernel is its stride."""

    def forward(self, x_BCZYX: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the transposed convolution, as ``nn.ConvTranspose3d`` does."""
        if output_size is None and _is_at_risk(x_BCZYX, self.weight):
            return _convolve_by_planes(self, x_BCZYX, transposed=True)
        return super().forward(x_BCZYX, output_size)


def _is_at_risk(x_BCZYX: Tensor, weight: Tensor) -> bool:
    """Return whether torch would compute the gradient of the weights with oneDNN in bfloat16."""
    if x_BCZYX.device.type != "cpu" or not (torch.is_grad_enabled() and weight.requires_grad):
        return False
    mixed = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    return mixed or x_BCZYX.dtype is torch.bfloat16


def _convolve_by_planes(module: nn.Conv3d | nn.ConvTranspose3d, x_BCZYX: Tensor, *, transposed: bool) -> Tensor:
    weight, bias = module.weight.bfloat16(), None if module.bias is None else module.bias.bfloat16()
    y_BKZYX: Tensor = _ByPlanes.apply(  # type: ignore[no-untyped-call]
        x_BCZYX.bfloat16(), weight, bias, module.stride, module.padding, transposed, module.groups
    )
    return y_BKZYX


class _ByPlanes(torch.autograd.Function):
    """A convolution, or a transposed one without padding, that computes the gradient of its weights plane by plane."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BCZYX: Tensor,
        weight: Tensor,
        bias_K: Tensor | None,
        stride: Axes3,
        padding: Axes3,
        transposed: bool,
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(x_BCZYX, weight)
        ctx.geometry = stride, padding, transposed, groups
        return torch.convolution(x_BCZYX, weight, bias_K, stride, padding, (1, 1, 1), transposed, (0, 0, 0), groups)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_BKZYX: Tensor) -> tuple[Tensor | None, ...]:
        x_BCZYX, weight = ctx.saved_tensors
        stride, padding, transposed, groups = ctx.geometry
        of_x, of_bias = None, None
        if ctx.needs_input_grad[0]:
            of_x = _gradients(gradient_BKZYX, x_BCZYX, weight, stride, padding, transposed, groups, of_x=True)[0]
        if ctx.needs_input_grad[2]:
            of_bias = gradient_BKZYX.sum((0, 2, 3, 4))
        of_weight = torch.zeros_like(weight, dtype=torch.float32)
        x_BCZYX, gradient_BKZYX = _channels_last(x_BCZYX), _channels_last(gradient_BKZYX)
        flat = stride[1:], padding[1:], transposed, groups
        for k in range(weight.shape[2]):
            inputs, outputs = (
                _planes_apart(k, x_BCZYX.shape[2], stride[0])
                if transposed
                else _planes_under(k, x_BCZYX.shape[2], gradient_BKZYX.shape[2], stride[0], padding[0])
            )
            weight_k = weight[:, :, k].contiguous()
            for images, gradients in _images(x_BCZYX[:, :, inputs], gradient_BKZYX[:, :, outputs]):
                of_weight[:, :, k] += _gradients(gradients, images, weight_k, *flat, of_x=False)[1]
        return of_x, of_weight.to(weight.dtype), of_bias, None, None, None, None


def _planes_under(k: int, n_inputs: int, n_outputs: int, stride: int, padding: int) -> tuple[slice, slice]:
    """Return the input planes that plane ``k`` of the kernel is applied to, and the output planes that they give."""
    first = max(0, -((k - padding) // stride))
    beyond = max(first, min(n_outputs, (n_inputs - 1 - k + padding) // stride + 1))
    start = first * stride + k - padding
    return slice(start, start + (beyond - first) * stride, stride), slice(first, beyond)


def _planes_apart(k: int, n_inputs: int, stride: int) -> tuple[slice, slice]:
    """Return the same for a transposed convolution: every input plane gives one output plane for each ``k``."""
    return slice(n_inputs), slice(k, None, stride)


def _images(x_BCZYX: Tensor, gradient_BKZYX: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield planes of the input and of the gradient as 2D images, (planes, channels, y, x).

    All at once if no large copy is needed, else those of one sample after the other.
    """
    if x_BCZYX.shape[2] == 0:
        return
    pair = x_BCZYX, gradient_BKZYX
    without_copy = all(part.is_contiguous(memory_format=torch.channels_last_3d) for part in pair)
    whole = without_copy or max(part.numel() for part in pair) < LARGE
    parts = [pair] if whole else zip(torch.split(x_BCZYX, 1), torch.split(gradient_BKZYX, 1), strict=True)
    for x, gradient in parts:
        yield _as_images(x), _as_images(gradient)


def _as_images(x_BCZYX: Tensor) -> Tensor:
    return _channels_last(x_BCZYX).transpose(1, 2).flatten(0, 1)


def _channels_last(x_BCZYX: Tensor) -> Tensor:
    return x_BCZYX.contiguous(memory_format=torch.channels_last_3d)


def _gradients(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    transposed: bool,
    groups: int,
    *,
    of_x: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of input and weights; only the requested one is computed."""
    n = len(stride)
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, (1,) * n, transposed, (0,) * n, groups, [of_x, not of_x, False]
    )
    return found
