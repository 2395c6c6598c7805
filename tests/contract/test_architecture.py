"""What every architecture promises, built in or of a plug-in: shapes, parameters, cost, weights by seed, its file."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import dilated_network
from decathlete.errors import OptionError
from decathlete.networks.build import build_network
from decathlete.networks.layout import LayoutNetwork, layout_of
from decathlete.networks.stages import StagedNetwork, first_stages, freeze_stages
from decathlete.planning.architectures import ARCHITECTURES, AnyNetworkSpec, architecture_of
from decathlete.planning.network_spec import NetworkSpec
from decathlete.planning.options import PlanOptions
from decathlete.planning.topology import make_topology

PATCHES: dict[int, tuple[int, ...]] = {2: (32, 24), 3: (16, 24, 16)}
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "unet": (
        {"min_fmap": 2},
        {"block": "residual"},
        {"norm": "batch", "filters": (6, 8, 12)},
        {"norm": "group", "depth": 1},
    ),
    "mednext": tuple({"network": f"mednext-{size}"} for size in "sml"),
    "dilated": ({},),
}
"""Options that change the network; a plug-in's architecture is tested with the defaults."""
CASES = [
    (name, dims, options) for name in ARCHITECTURES.names() for dims in (2, 3) for options in OPTIONS.get(name, ({},))
]
assert dilated_network.__name__ == ARCHITECTURES.resolve("dilated").cls.__module__


@pytest.fixture(params=CASES, ids=str)
def spec(request: pytest.FixtureRequest) -> NetworkSpec:
    return planned(*request.param)


def planned(name: str, dims: int, changes: dict[str, Any]) -> NetworkSpec:
    chosen = {} if "network" in changes else {"architecture": name}
    component, options = ARCHITECTURES.resolve(name), PlanOptions(**chosen, **changes)
    topology = make_topology((1.0,) * dims, PATCHES[dims], pooling=component.cls.pooling(options))
    made = component.cls.plan_spec(topology, in_channels=2, out_channels=3, options=options)
    return architecture_of(made).with_width(4) or made


def patch_of(spec: NetworkSpec) -> tuple[int, ...]:
    return tuple(-(-size // divisor) * divisor for size, divisor in zip(PATCHES[spec.dims], spec.divisor, strict=True))


def windows(spec: NetworkSpec, n: int = 2) -> Tensor:
    return torch.randn((n, spec.in_channels, *patch_of(spec)), generator=torch.Generator().manual_seed(3))


class ConvolutionOutputs(TorchDispatchMode):
    """Counts the elements of the outputs of convolutions and matrix products."""

    COUNTED = (
        torch.ops.aten.convolution.default,
        torch.ops.aten.addmm.default,
        torch.ops.aten.mm.default,
        torch.ops.aten.bmm.default,
    )

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        if function in self.COUNTED:
            self.elements += out.numel()
        return out


def test_outputs_have_the_shapes_of_the_specification(spec):
    network, x = build_network(spec, seed=1), windows(spec)
    outputs = network.train()(x)
    assert isinstance(outputs, tuple)
    assert len(outputs) == spec.heads
    assert outputs[0].shape == (2, spec.out_channels, *x.shape[2:])
    for finer, coarser in pairwise(outputs):
        assert coarser.shape[:2] == finer.shape[:2]
        assert all(c <= f for c, f in zip(coarser.shape[2:], finer.shape[2:], strict=True))
    logits = network.eval()(x)
    assert isinstance(logits, Tensor)
    assert logits.shape == outputs[0].shape
    assert logits.isfinite().all()


def test_every_parameter_gets_a_gradient(spec):
    network = build_network(spec, seed=1).train()
    sum(logits.square().mean() for logits in network(windows(spec))).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


def test_multiply_adds_are_those_of_a_forward_pass_in_training_mode(spec):
    network = build_network(spec, seed=1).train()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(windows(spec, n=1))
    assert counter.get_total_flops() == 2 * architecture_of(spec).multiply_adds(patch_of(spec))


def test_feature_map_elements_are_those_of_a_forward_pass_in_evaluation_mode(spec):
    network = build_network(spec, seed=1).eval()
    with torch.no_grad(), ConvolutionOutputs() as outputs:
        network(windows(spec, n=1))
    assert outputs.elements == architecture_of(spec).feature_map_elements(patch_of(spec))


def test_the_same_seed_gives_the_same_weights_and_leaves_torch_alone(spec):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build_network(spec, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_without_a_seed_weights_come_from_torchs_state(spec):
    torch.manual_seed(5)
    first = build_network(spec).state_dict()
    torch.manual_seed(5)
    again = build_network(spec).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_weights_can_be_saved_and_loaded_without_values(spec):
    saved = build_network(spec, seed=1).eval()
    with torch.device("meta"):
        empty = build_network(spec)
    assert {name: value.shape for name, value in empty.state_dict().items()} == {
        name: value.shape for name, value in saved.state_dict().items()
    }
    assert all(value.device.type == "meta" for value in empty.state_dict().values())
    empty.load_state_dict(saved.state_dict(), assign=True)
    with torch.no_grad():
        assert torch.equal(empty.eval()(windows(spec)), saved(windows(spec)))


def test_the_specification_survives_its_file(spec):
    adapter: TypeAdapter[NetworkSpec] = TypeAdapter(AnyNetworkSpec)
    text = adapter.dump_json(spec)
    assert adapter.validate_json(text) == spec
    assert f'"architecture":"{spec.architecture}"' in text.decode()


def test_a_narrower_network_is_cheaper(spec):
    architecture = architecture_of(spec)
    narrow = architecture.with_width(2)
    if narrow is None:
        assert architecture.with_width(2, finest_only=True) is None
        return
    assert architecture_of(narrow).width == 2 < architecture.width
    assert architecture_of(narrow).multiply_adds(patch_of(spec)) < architecture.multiply_adds(patch_of(spec))
    thin = architecture.with_width(2, finest_only=True)
    assert architecture_of(thin).width == 2
    narrower, thinner = (architecture_of(s).multiply_adds(patch_of(spec)) for s in (narrow, thin))
    assert narrower <= thinner < architecture.multiply_adds(patch_of(spec))


def test_another_topology_keeps_the_kind_of_network(spec):
    architecture = architecture_of(spec)
    topology = make_topology((1.0,) * spec.dims, (64,) * spec.dims, pooling=architecture.pooling(None))
    other = architecture.replanned(topology)
    assert (other.architecture, other.in_channels, other.out_channels) == (spec.architecture, 2, 3)
    assert architecture_of(other).width == architecture.width
    assert all(size % divisor == 0 for size, divisor in zip(topology.patch_size, other.divisor, strict=True))
    assert architecture.replanned(architecture.topology(patch_of(spec))) == spec


def test_another_topology_keeps_full_resolution_alone_narrower(spec):
    architecture = architecture_of(spec)
    thin = architecture.with_width(1, finest_only=True)
    if thin is None:
        return
    topology = make_topology((1.0,) * spec.dims, (64,) * spec.dims, pooling=architecture.pooling(None))
    as_wide = architecture_of(architecture.with_width(4) or spec).replanned(topology)
    assert architecture_of(thin).replanned(topology) == architecture_of(as_wide).with_width(1, finest_only=True)


def test_the_layout_changes_no_result(spec):
    network = build_network(spec, seed=1).eval()
    if not isinstance(network, LayoutNetwork):
        assert layout_of(network) is torch.contiguous_format
        return
    with torch.no_grad():
        expected = network(windows(spec))
        network.set_layout(torch.channels_last if spec.dims == 2 else torch.channels_last_3d)
        assert layout_of(network) is not torch.contiguous_format
        torch.testing.assert_close(network(windows(spec)), expected, rtol=1e-4, atol=1e-4)


def test_the_output_of_a_stage_depends_on_this_and_the_finer_stages_alone(spec):
    network = build_network(spec, seed=1).train()
    if not isinstance(network, StagedNetwork):
        assert spec.architecture not in ARCHITECTURES.builtin_names
        with pytest.raises(OptionError, match=r"--freeze-stages 1: .* do not name the stages of their encoder"):
            freeze_stages(network, 1)
        return
    n_stages = len(network.encoder_stages())
    assert n_stages == spec.n_stages
    for n in range(1, n_stages):
        network = build_network(spec, seed=1).train()
        freeze_stages(network, n)
        frozen = {name for name, weight in network.named_parameters() if not weight.requires_grad}
        assert frozen == weights_behind(network, first_stages(network, n)[-1][-1], windows(spec, n=1))
    with pytest.raises(OptionError, match=f"--freeze-stages {n_stages}: .* has {n_stages} stage") as refused:
        freeze_stages(network, n_stages)
    assert refused.value.remedy == f"use at most {n_stages - 1}"


def weights_behind(network: nn.Module, module: nn.Module, x: Tensor) -> set[str]:
    """The weights that the output of a module depends on."""
    outputs: list[Tensor] = []
    network.requires_grad_(True)
    with_hook = module.register_forward_hook(lambda _, __, output: outputs.append(output))
    network(x)
    with_hook.remove()
    weights = dict(network.named_parameters())
    found = torch.autograd.grad(outputs[0].square().sum(), list(weights.values()), allow_unused=True)
    return {name for name, gradient in zip(weights, found, strict=True) if gradient is not None}


def test_the_network_is_a_module_whose_devices_can_be_changed(spec):
    network = build_network(spec, seed=1)
    assert isinstance(network, nn.Module)
    assert {p.device.type for p in network.parameters()} == {"cpu"}
    assert {p.dtype for p in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_planning_does_not_import_torch(name):
    module = ARCHITECTURES.resolve(name).cls.__module__
    code = f"""
import sys, {module}
sys.path[:0] = {sys.path!r}
from decathlete.planning.architectures import ARCHITECTURES, architecture_of
from decathlete.planning.options import PlanOptions
from decathlete.planning.topology import make_topology
cls = ARCHITECTURES.resolve({name!r}).cls
options = PlanOptions(architecture={name!r})
topology = make_topology((1, 1, 1), (32, 32, 32), pooling=cls.pooling(options))
spec = cls.plan_spec(topology, in_channels=1, out_channels=2, options=options)
architecture = architecture_of(spec)
assert architecture.multiply_adds(topology.patch_size) > 0 < architecture.feature_map_elements(topology.patch_size)
assert architecture.precisions and architecture.rows() and architecture.memory_reference.elements > 0
assert "torch" not in sys.modules
"""
    code = f"import sys; sys.path[:0] = {sys.path!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
