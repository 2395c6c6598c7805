"""3D convolutions in bfloat16 whose weights' gradients are computed plane by plane: as float32 has them."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from decathlete.networks.convolutions import Conv3d, ConvTranspose3d
from decathlete.networks.precision import default_precision

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


ROUNDING = 2**-8
"""Of the greatest number: what rounding to bfloat16 may change, inside a sum and of its result."""


def rounded(x: Tensor) -> Tensor:
    """Numbers that bfloat16 and float32 both have."""
    return x.bfloat16().float()


def with_rounded_weights(layer: nn.Module) -> nn.Module:
    for weight in layer.parameters():
        weight.data = rounded(weight.data)
    return layer


def drawn(number: int) -> tuple[nn.Module, Tensor]:
    """A layer and an input of drawn sizes, deep and flat, strided and not."""
    draw = random.Random(number)
    size = [draw.randint(1, 9) for _ in range(3)]
    kernel, stride = ([draw.choice(choices) for _ in range(3)] for choices in ((1, 3), (1, 1, 2)))
    channels = draw.choice([1, 3, 5, 16]), draw.choice([1, 2, 24])
    torch.manual_seed(number)
    layer = (
        ConvTranspose3d(*channels, stride, stride)
        if number % 3 == 0
        else Conv3d(*channels, kernel, stride, padding=[k // 2 for k in kernel])
    )
    x = rounded(torch.randn(draw.randint(1, 3), channels[0], *size))
    return with_rounded_weights(layer), x.contiguous(memory_format=draw.choice(LAYOUTS))


def gradients(layer: nn.Module, x: Tensor, gradient: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    layer.zero_grad()
    layer(x).backward(gradient)
    return [x.grad, *(weight.grad for weight in layer.parameters())]


@pytest.mark.parametrize("number", range(24))
def test_gradients_are_those_of_float32_rounded(number):
    layer, x = drawn(number)
    gradient = torch.randn_like(layer(x)).bfloat16()
    expected = gradients(layer, x, gradient.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(layer, x, gradient)
    for mine, others in zip(found, expected, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, others, atol=ROUNDING * float(others.abs().max().clamp_min(1e-3)), rtol=0)


def test_outputs_are_those_of_torch_to_the_bit():
    for number in range(6):
        layer, x = drawn(number)
        with torch.autocast("cpu", torch.bfloat16):
            with_gradient, without = layer(x), layer.requires_grad_(False)(x)
        assert with_gradient.requires_grad
        assert torch.equal(with_gradient, without)


def test_float32_and_predictions_are_left_to_torch():
    layer, torchs = Conv3d(2, 3, 3, padding=1), nn.Conv3d(2, 3, 3, padding=1)
    torchs.load_state_dict(layer.state_dict())
    x = torch.randn(1, 2, 4, 4, 4)
    assert layer(x).grad_fn.name() == torchs(x).grad_fn.name() == "ConvolutionBackward0"
    for mine, others in zip(*(gradients(conv, x, torch.ones(1, 3, 4, 4, 4)) for conv in (layer, torchs)), strict=True):
        assert torch.equal(mine, others)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        assert torch.equal(layer(x), torchs(x))


@pytest.mark.skipif(default_precision(torch.device("cpu")) != "bf16", reason="needs a CPU that computes in bfloat16")
@pytest.mark.parametrize(
    ("kernel", "size"),
    [((1, 3, 3), (5, 112, 96)), ((1, 3, 3), (1, 112, 96)), ((1, 3, 3), (5, 56, 48)), ((3, 3, 3), (2, 4, 10))],
)
def test_maps_for_which_onednn_breaks(kernel, size):
    torch.manual_seed(0)
    layer = with_rounded_weights(Conv3d(16, 16, kernel, padding=[k // 2 for k in kernel]))
    x = rounded(torch.randn(2, 16, *size)).contiguous(memory_format=torch.channels_last_3d)
    gradient = rounded(torch.randn_like(x))
    expected = gradients(layer, x, gradient)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(10):
            found = gradients(layer, x, gradient.bfloat16())
    for mine, others in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, others, atol=ROUNDING * float(others.abs().max()), rtol=0)
