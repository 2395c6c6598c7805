"""Instance normalisation forward and backward in both memory layouts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from decathlete.networks.instance_norm import InstanceNorm

LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


def gradients(norm: InstanceNorm, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = x.detach().requires_grad_()
    norm.zero_grad()
    norm(x).backward(gradient)
    assert x.grad is not None
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    return x.grad, norm.weight.grad, norm.bias.grad


def made(dims: int) -> tuple[InstanceNorm, Tensor, Tensor]:
    torch.manual_seed(0)
    norm = InstanceNorm(19)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 + 2 * torch.randn(3, 19, *(7, 5, 6)[:dims])
    return norm, x, torch.randn_like(x)


@pytest.mark.parametrize("dims", [2, 3])
def test_gradients_do_not_depend_on_the_layout(dims):
    norm, x, gradient = made(dims)
    expected = gradients(norm, x, gradient)
    last = x.contiguous(memory_format=LAYOUTS[dims])
    for layout in (torch.contiguous_format, LAYOUTS[dims]):  # of the gradient that comes back
        found = gradients(norm, last, gradient.contiguous(memory_format=layout))
        assert found[0].is_contiguous(memory_format=LAYOUTS[dims])
        for mine, others in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, others, atol=1e-5, rtol=1e-4)
    assert torch.equal(norm(last.requires_grad_()), norm(last.detach())), "with and without gradients"


@pytest.mark.parametrize("dims", [2, 3])
def test_gradients_are_those_that_finite_differences_give(dims):
    norm, x, _ = made(dims)
    norm = norm.double()
    last = x[:2, :, :3].double().contiguous(memory_format=LAYOUTS[dims]).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, weight, bias: torch.func.functional_call(norm, {"weight": weight, "bias": bias}, x),
        (last, norm.weight, norm.bias),
    )


def test_gradients_in_bfloat16_are_those_of_float32_rounded():
    norm, *drawn = made(3)
    x, gradient = (numbers.bfloat16().float() for numbers in drawn)  # numbers that both formats have
    expected = gradients(norm, x, gradient)
    last = x.bfloat16().contiguous(memory_format=torch.channels_last_3d)
    found = gradients(norm, last, gradient.bfloat16().contiguous(memory_format=torch.channels_last_3d))
    assert [g.dtype for g in found] == [torch.bfloat16, torch.float32, torch.float32]
    for mine, others in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.float(), others, atol=2**-8 * float(others.abs().max()), rtol=0)


def test_a_map_of_one_voxel_has_no_gradient():
    norm = InstanceNorm(4)
    x = torch.randn(2, 4, 2, 1, 1)[:, :, :1].contiguous(memory_format=torch.channels_last_3d)
    of_x, of_weight, of_bias = gradients(norm, x, torch.ones_like(x))
    assert of_x.abs().max() < 1e-3
    assert of_weight.abs().max() < 1e-3
    assert torch.equal(of_bias, torch.full((4,), 2.0))


def test_it_is_differentiated_once():
    """Saying so, rather than giving wrong second gradients."""
    norm, x, _ = made(3)
    last = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    first = torch.autograd.grad(norm(last).square().sum(), last, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
