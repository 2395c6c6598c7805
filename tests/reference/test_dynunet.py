"""Imported networks against MONAI's DynUNet itself."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from decathlete.core.choices import Norm
from decathlete.interop.dynunet_weights import DynUNetWeights
from decathlete.networks.build import build_network
from decathlete.networks.unet import UNet

pytestmark = pytest.mark.full

NORMS: dict[Norm, tuple[str, dict[str, Any]]] = {
    "instance": ("INSTANCE", {"affine": True}),
    "batch": ("BATCH", {"affine": True}),
    "group": ("GROUP", {"affine": True, "num_groups": 4}),
}


def monais(dims: int, residual: bool, norm: Norm, supervised: bool, thin: bool, trans_bias: bool = True) -> Any:
    """MONAI's network; with ``thin`` the first axis has kernel and stride 1 at first."""
    nets = pytest.importorskip("monai.networks.nets")
    first = 1 if thin else 3
    kernels = [(first,) + (3,) * (dims - 1)] * 2 + [(3,) * dims] * 2
    strides = [(1,) * dims, (1 if thin else 2,) + (2,) * (dims - 1), (2,) * dims, (2,) * dims]
    torch.manual_seed(0)
    network = nets.DynUNet(
        dims,
        2,
        3,
        kernels,
        strides,
        strides[1:],
        filters=(8, 12, 16, 20),
        norm_name=NORMS[norm],
        deep_supervision=supervised,
        deep_supr_num=2,
        res_block=residual,
        trans_bias=trans_bias,
    )
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if "norm" in name and value.is_floating_point():
                value.add_(0.3 * torch.rand_like(value))
            elif name.endswith("bias"):
                value.add_(0.3 * torch.randn_like(value))
    return network


def imported(network: Any, norm: Norm) -> UNet:
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    weights = DynUNetWeights.from_state_dict(state)
    spec = weights.network_spec(norm=norm, norm_groups=4)
    ours = build_network(spec)
    ours.load_state_dict(weights.to_state_dict(spec))
    return ours


def image(dims: int) -> Tensor:
    return torch.randn(2, 2, *(16, 24, 32)[:dims], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("dims", "residual", "norm", "supervised", "thin"),
    list(product((2, 3), (False, True), NORMS, (False, True), (False, True))),
)
def test_the_same_logits(dims: int, residual: bool, norm: Norm, supervised: bool, thin: bool) -> None:
    """In double precision the same function; in single precision up to rounding.

    Instance norms are summed in another order than MONAI's, and over the few voxels of a bottleneck that shows: up to
    1.3e-5 was seen where logits reach 4.7. So 1e-5 is meant of the greatest logit, where that is above 1.
    """
    theirs = monais(dims, residual, norm, supervised, thin).eval()
    ours = imported(theirs, norm).eval()
    with torch.inference_mode():
        expected_BK, logits_BK = theirs(image(dims)), ours(image(dims))
        exact_BK, double_BK = theirs.double()(image(dims).double()), ours.double()(image(dims).double())
    assert expected_BK.std() > 0.1
    assert (logits_BK - expected_BK).abs().max() < 1e-5 * max(1.0, float(expected_BK.abs().max()))
    assert (double_BK - exact_BK).abs().max() < 1e-12


@pytest.mark.parametrize("residual", [False, True])
def test_the_supervised_outputs_too(residual: bool) -> None:
    theirs = monais(3, residual, "instance", True, True).train()
    ours = imported(theirs, "instance").train()
    with torch.no_grad():
        expected, outputs = theirs(image(3)).unbind(1), ours(image(3))
    assert len(outputs) == len(expected) == 3
    for output_BK, expected_BK in zip(outputs, expected, strict=True):
        upsampled_BK = functional.interpolate(output_BK, expected_BK.shape[2:])
        assert (upsampled_BK - expected_BK).abs().max() < 1e-5 * max(1.0, float(expected_BK.abs().max()))


def test_transposed_convolutions_without_bias() -> None:
    theirs = monais(2, False, "instance", False, False, trans_bias=False).eval()
    ours = imported(theirs, "instance").eval()
    with torch.inference_mode():
        assert (ours(image(2)) - theirs(image(2))).abs().max() < 1e-5
