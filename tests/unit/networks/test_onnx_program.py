"""Programs of other runtimes compute what torch computes, whatever the network is made of."""

from __future__ import annotations

import logging

import pytest
import torch

from decathlete.errors import ModelError, OptionError
from decathlete.inference.engines.onnx import OnnxEngine
from decathlete.inference.engines.openvino import OpenVinoEngine
from decathlete.inference.engines.torch import TorchEngine
from decathlete.networks import onnx_program as writer
from decathlete.networks.build import build_network
from decathlete.networks.onnx_program import onnx_program
from decathlete.networks.precision import default_precision
from decathlete.networks.unet_spec import UNetSpec

pytestmark = pytest.mark.full
pytest.importorskip("onnx")

ENGINES = {"openvino": OpenVinoEngine, "onnxruntime": OnnxEngine}


def make_spec(dims: int = 3, **changes) -> UNetSpec:
    """Three stages; anisotropic kernels and strides in 3D."""
    flat, cube = ((1, 3, 3), (1, 2, 2)) if dims == 3 else ((3, 3), (2, 2))
    fields = {
        "dims": dims,
        "in_channels": 2,
        "out_channels": 3,
        "kernels": (flat, (3,) * dims, (3,) * dims),
        "strides": ((1,) * dims, cube, (2,) * dims),
        "features": (4, 6, 8),
        "encoder_convs": (1, 2, 1),
        "decoder_convs": (2, 1),
        "heads": 2,
    }
    return UNetSpec(**(fields | changes))


SPECS = {
    "3D, anisotropic": make_spec(),
    "2D": make_spec(2),
    "batch norm": make_spec(norm="batch"),
    "group norm, 2D": make_spec(2, norm="group", norm_groups=2),
    "residual": make_spec(block="residual", encoder_convs=(1, 2, 2)),
    "residual, no stem, strided shortcuts": make_spec(
        2, block="residual", stem=False, shortcut="strided", norm="batch", negative_slope=0.2
    ),
    "decoder kernels of their own": make_spec(2, decoder_kernels=((1, 1), (5, 3))),
}


def make_networks(spec: UNetSpec, n: int = 1):
    """Networks whose every weight and running statistic matters."""
    networks = [build_network(spec, seed=seed).eval() for seed in range(n)]
    generator = torch.Generator().manual_seed(1)
    for network in networks:
        for name, value in network.state_dict().items():
            if value.ndim == 1:
                drawn = torch.rand(value.shape, generator=generator) + 0.5
                value.copy_(drawn if "var" in name or "weight" in name else drawn - 1)
    return networks


def make_program(networks, spec: UNetSpec) -> bytes:
    window = (spec.in_channels, *(8, 16, 12)[-spec.dims :])
    return onnx_program(networks, window=window, n_outputs=spec.out_channels)


def make_windows(spec: UNetSpec, n: int = 1):
    patch = (8, 16, 12)[-spec.dims :]
    return torch.randn(n, spec.in_channels, *patch, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("package", ENGINES)
@pytest.mark.parametrize("case", SPECS)
def test_logits_are_torchs(case, package):
    pytest.importorskip(package)
    spec = SPECS[case]
    networks, windows = make_networks(spec), make_windows(spec, n=3)
    program = make_program(networks, spec)
    engine = ENGINES[package](program, window=tuple(windows.shape[1:]), precision="fp32")
    expected = TorchEngine(networks[0], precision="fp32")(windows)
    found = engine(windows)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert torch.equal(engine(windows), found), "a second time it is the same, bit for bit"
    kept = found.clone()
    engine(windows * 2)
    assert torch.equal(found, kept), "logits are not overwritten by those of the next windows"


@pytest.mark.parametrize("package", ENGINES)
def test_several_networks_are_averaged(package):
    pytest.importorskip(package)
    spec = SPECS["2D"]
    networks, windows = make_networks(spec, n=2), make_windows(spec)
    program = make_program(networks, spec)
    found = ENGINES[package](program, window=tuple(windows.shape[1:]), precision="fp32")(windows)
    expected = sum(TorchEngine(network, precision="fp32")(windows) for network in networks) / 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("package", ENGINES)
def test_flipped_windows_and_windows_of_another_size(package):
    """A flip's result has strides of its own; a window that the program is not made for is a mistake of the caller."""
    pytest.importorskip(package)
    spec = SPECS["2D"]
    (network,), windows = make_networks(spec), make_windows(spec)
    engine = ENGINES[package](make_program([network], spec), window=(2, 16, 12), precision="fp32")
    expected = TorchEngine(network, precision="fp32")(windows.flip(2))
    strided = windows.transpose(2, 3).flip(3).contiguous().transpose(2, 3)
    torch.testing.assert_close(engine(strided), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    with pytest.raises(ValueError, match="accepts"):
        engine(windows[..., :8])


@pytest.mark.parametrize("package", ENGINES)
def test_precisions_that_an_engine_does_not_have(package):
    pytest.importorskip(package)
    spec = SPECS["2D"]
    program = make_program(make_networks(spec), spec)
    if package == "onnxruntime" or default_precision(torch.device("cpu")) == "fp32":
        with pytest.raises(OptionError, match="does not compute in bf16"):
            ENGINES[package](program, window=(2, 16, 12), precision="bf16")
    with pytest.raises(OptionError, match="fp16"):
        ENGINES[package](program, window=(2, 16, 12), precision="fp16")


def test_networks_that_one_program_cannot_hold_are_refused(monkeypatch):
    spec = SPECS["2D"]
    networks = make_networks(spec, n=2)
    one = sum(value.numel() * value.element_size() for value in networks[0].state_dict().values())
    monkeypatch.setattr(writer, "LARGEST_BYTES", one)
    assert make_program(networks[:1], spec)
    with pytest.raises(ModelError, match=r"its 2 network\(s\) have .* together"):
        make_program(networks, spec)


class Attention(torch.nn.Module):
    """No U-Net: self-attention among coarse patches, in either number of axes."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        conv, up = (
            (torch.nn.Conv2d, torch.nn.ConvTranspose2d) if dims == 2 else (torch.nn.Conv3d, torch.nn.ConvTranspose3d)
        )
        self.down, self.up = conv(2, 8, 4, stride=4), up(8, 3, 4, stride=4)
        self.attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = torch.nn.LayerNorm(8)

    def forward(self, x):
        coarse = self.down(x)
        tokens = self.norm(coarse.flatten(2).transpose(1, 2))
        mixed = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return self.up(mixed.transpose(1, 2).reshape(coarse.shape))


class DataDependent(torch.nn.Module):
    def forward(self, x):
        return x * 2 if float(x.sum()) > 0 else x


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("package", ENGINES)
def test_networks_that_are_no_unets_are_exported_by_torch(package, dims, recwarn, caplog):
    pytest.importorskip(package)
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    networks, patch = [Attention(dims).eval() for _ in range(2)], (8, 16, 12)[-dims:]
    windows = torch.randn(3, 2, *patch)
    program = onnx_program(networks, window=(2, *patch), n_outputs=3, metadata={"decathlete": "x"})
    found = ENGINES[package](program, window=(2, *patch), precision="fp32")(windows)
    expected = sum(TorchEngine(network, precision="fp32")(windows) for network in networks) / 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert [str(w.message) for w in recwarn] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_network_that_torch_cannot_export_is_an_error_that_says_why():
    pytest.importorskip("onnxscript")
    with pytest.raises(ModelError, match=r"torch.onnx.export cannot export this network \(.+\)\n.*choose another"):
        onnx_program([DataDependent().eval()], window=(2, 8, 8), n_outputs=2, alternative="choose another format")


class Wrapped(torch.nn.Module):
    """A U-Net that cannot write its own graph."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x)


def test_the_unets_own_graph_computes_what_torchs_export_of_it_computes():
    """The same operations: OpenVINO gives the same logits for both, bit for bit."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    spec = SPECS["3D, anisotropic"]
    (network,), windows = make_networks(spec), make_windows(spec, n=2)
    written, exported = (
        OpenVinoEngine(make_program([each], spec), window=tuple(windows.shape[1:]), precision="fp32")(windows)
        for each in (network, Wrapped(network).eval())
    )
    assert torch.equal(written, exported)
