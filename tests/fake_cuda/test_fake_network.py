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
BLOCKS = [
    {"block": "plain"},
    {"block": "residual"},
    {"block": "residual", "shortcut": "strided", "stem": False},
]


@pytest.mark.parametrize("layout", ["auto", "channels_last"])
@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("norm", ["instance", "batch", "group"])
@pytest.mark.parametrize("block", BLOCKS, ids=["plain", "pooled", "strided"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_network_computes_on_the_device_without_waiting(cuda, dims, block, norm, precision, layout):
    spec = make_test_network(dims, in_channels=2).revised(norm=norm, encoder_convs=(2, 2), **block)
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
def test_feature_maps_keep_the_layout_asked_for(cuda, dims):
    channels_last = torch.channels_last if dims == 2 else torch.channels_last_3d
    # Torch's instance norm returns contiguous maps on CUDA, whatever it gets.
    network = build_network(make_test_network(dims).revised(norm="batch"), seed=1).to(cuda.device).eval()
    for layout, expected in (("auto", torch.contiguous_format), ("channels_last", channels_last)):
        network.set_layout(memory_format(layout, cuda.device, dims, "bf16"))
        seen = []
        hook = network.encoder[0][0].norm.register_forward_hook(lambda _, inputs, y: seen.append((inputs[0], y)))
        with torch.inference_mode(), autocast("bf16", cuda.device):
            network(torch.zeros(2, 1, *(16,) * dims, device=cuda.device))
        hook.remove()
        ((before, after),) = seen
        assert before.is_contiguous(memory_format=expected)
        assert after.is_contiguous(memory_format=expected)


def test_a_gpu_of_compute_capability_8_computes_in_bf16(cuda):
    assert default_precision(cuda.device) == "bf16"
