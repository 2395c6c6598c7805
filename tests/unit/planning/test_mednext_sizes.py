"""MedNeXt in its four sizes with all five resolutions: planned, estimated, built; the large ones without numbers."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from decathlete.networks.build import build_network
from decathlete.networks.mednext_spec import MedNeXtSpec
from decathlete.planning.architectures import architecture_of
from decathlete.planning.memory import memory_fraction, training_bytes
from decathlete.planning.plan import Plan
from made_up import made_up_plan

SIZES = ("s", "b", "m", "l")
BLOCKS = {"s": (2, 2, 2, 2, 2), "b": (2, 2, 2, 2, 2), "m": (3, 4, 4, 4, 4), "l": (3, 4, 8, 8, 8)}
PARAMETERS = {"s": 5.6e6, "b": 10.5e6, "m": 17.6e6, "l": 61.8e6}
"""Roy et al. 2023, table 2, kernel 3."""


def plan_of(size: str) -> Plan:
    return made_up_plan(shape=(160, 160, 160), network=f"mednext-{size}")


def spec_of(size: str) -> MedNeXtSpec:
    network = plan_of(size).network
    assert isinstance(network, MedNeXtSpec)
    return network


@pytest.mark.parametrize("size", SIZES)
def test_a_size_has_its_depths_and_parameters(size: str) -> None:
    spec = spec_of(size)
    assert spec.encoder_blocks == BLOCKS[size]
    assert spec.decoder_blocks == BLOCKS[size][:4]
    with torch.device("meta"):
        network = build_network(spec)
    assert [len(stage) for stage in network.get_submodule("encoder").children()] == list(BLOCKS[size])
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(PARAMETERS[size], rel=0.02)


@pytest.mark.parametrize("size", ["m", "l"])
def test_the_cost_of_a_large_network_is_that_of_its_forward_pass(size: str) -> None:
    spec, patch = spec_of(size), (64, 64, 64)
    with torch.device("meta"):
        network, x = build_network(spec).train(), torch.empty(1, 1, *patch)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        outputs = network(x)
    assert [tuple(head.shape[1:]) for head in outputs] == [(3, *(n >> i for n in patch)) for i in range(4)]
    assert counter.get_total_flops() == 2 * architecture_of(spec).multiply_adds(patch)


def test_a_larger_network_gets_a_smaller_patch_of_the_same_memory() -> None:
    plans = [plan_of(size) for size in SIZES]
    assert all(memory_fraction(plan.network, plan.patch_size, memory_gb=8) <= 1 for plan in plans)
    voxels = [torch.Size(plan.patch_size).numel() for plan in plans]
    assert voxels == sorted(set(voxels), reverse=True)
    needed = [training_bytes(plan.network, (64, 64, 64), 2) for plan in plans]
    assert needed == sorted(set(needed))


@pytest.mark.parametrize("size", ["m", "l"])
def test_a_narrow_network_of_all_depths_computes_and_learns(size: str) -> None:
    spec = architecture_of(spec_of(size)).with_width(2)
    assert isinstance(spec, MedNeXtSpec)
    assert spec.encoder_blocks == BLOCKS[size]
    network, x = build_network(spec, seed=1), torch.randn(1, 1, 32, 32, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = network.eval()(x)
    assert logits.shape == (1, 3, 32, 32, 64)
    assert logits.isfinite().all()
    sum(head.square().mean() for head in network.train()(x)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
