"""Networks on a fake CUDA device, in every precision and memory layout that the program uses there."""

from __future__ import annotations

import pytest
import torch

from decathlete.networks.build import build_network
from decathlete.networks.kernels import fast_kernels
from decathlete.networks.layout import memory_format
from decathlete.networks.precision import autocast, default_precision
from factories import make_test_network

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
KINDS = {
    "plain": {"block": "plain"},
    "batch_norm": {"block": "plain", "norm": "batch"},
    "group_norm": {"block": "plain", "norm": "group"},
    "residual": {"block": "residual"},
    "strided_shortcut": {"block": "residual", "shortcut": "strided", "stem": False},
}


@pytest.mark.parametrize("layout", ["auto", "channels_last"])
@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dims", [2, 3])
def test_a_network_computes_on_the_device_without_waiting(cuda, dims, kind, precision, layout):
    spec = make_test_network(dims, in_channels=2).revised(encoder_convs=(2, 2), **KINDS[kind])
    with cuda.device:  # as Lightning builds it
        network = build_network(spec, seed=1)
    assert {p.device for p in network.parameters()} == {cuda.device}
    network.set_layout(memory_format(layout, cuda.device, dims, precision))
    image_BC = torch.zeros(2, 2, *(16,) * dims, device=cuda.device)
    waited = len(cuda.waits)  # weights are drawn on the CPU and copied once
    with fast_kernels(cuda.device), autocast(precision, cuda.device):
        heads = network.train()(image_BC)
        with torch.inference_mode():
            logits_BK = network.eval()(image_BC)
    for output in (*heads, logits_BK):
        assert (output.device, output.dtype, output.shape) == (cuda.device, DTYPES[precision], (2, 3, *(16,) * dims))
    assert heads[0].requires_grad
    assert cuda.waits[waited:] == []


@pytest.mark.parametrize("dims", [2, 3])
def test_every_convolution_computes_in_the_layout_asked_for(cuda, dims):
    """In fp16: without a driver torch takes another way for bf16 than cuDNN's."""
    channels_last = torch.channels_last if dims == 2 else torch.channels_last_3d
    network = build_network(make_test_network(dims), seed=1).to(cuda.device).eval()
    maps = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d) and max(module.kernel_size) > 1:
            module.register_forward_hook(lambda _module, _inputs, y_BC: maps.append(y_BC))
    for layout, expected in (("auto", torch.contiguous_format), ("channels_last", channels_last)):
        maps.clear()
        network.set_layout(memory_format(layout, cuda.device, dims, "fp16"))
        with torch.inference_mode(), autocast("fp16", cuda.device):
            network(torch.zeros(2, 1, *(16,) * dims, device=cuda.device))
        assert len(maps) == 3
        assert all(y_BC.is_contiguous(memory_format=expected) for y_BC in maps)


def test_a_gpu_of_compute_capability_8_computes_in_bf16(cuda):
    assert default_precision(cuda.device) == "bf16"
