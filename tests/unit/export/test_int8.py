"""Quantised programs: convolutions in int8, norms not; logits nearly the same; nothing is told over the network."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from decathlete.core import extras
from decathlete.errors import MissingPackageError, OptionError
from decathlete.export.int8 import quantize
from decathlete.inference.engines.openvino import OpenVinoEngine
from decathlete.networks.build import build_network
from decathlete.networks.onnx_program import onnx_program
from decathlete.workflows.export_int8 import export_int8
from factories import make_test_network

WINDOW = (1, 16, 16, 16)


def program_of(n_networks: int = 1) -> bytes:
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    pytest.importorskip("nncf")
    spec = make_test_network(3)
    networks = [build_network(spec, seed=seed).eval() for seed in range(n_networks)]
    return onnx_program(networks, window=WINDOW, n_outputs=spec.out_channels)


def noise(n: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, *WINDOW, generator=generator) for _ in range(n)]


def in_int8(model) -> dict[str, bool]:
    """Convolution -> whether what comes into it is quantised."""
    found = {}
    for op in model.get_ops():
        if op.get_type_name() in ("Convolution", "ConvolutionBackpropData"):
            before = op.input_value(0).get_node()
            joined = before.input_values() if before.get_type_name() == "Concat" else [op.input_value(0)]
            found[op.get_friendly_name()] = {x.get_node().get_type_name() for x in joined} == {"FakeQuantize"}
    return found


@pytest.mark.full
def test_an_int8_program_computes_nearly_the_same_for_any_number_of_windows(tmp_path) -> None:
    program = program_of()
    model = quantize(program, noise(8), window=WINDOW, networks=1, ends_in_fp32=False)
    assert all(in_int8(model).values())
    assert len(in_int8(model)) == 5
    norms = [op for op in model.get_ops() if op.get_type_name() == "MVN"]
    assert len(norms) == 3
    assert not any(norm.input_value(0).get_node().get_type_name() == "FakeQuantize" for norm in norms)
    import openvino

    openvino.save_model(model, tmp_path / "p.xml", compress_to_fp16=False)
    compiled = openvino.Core().compile_model(tmp_path / "p.xml", "CPU")
    assert compiled([torch.cat(noise(2, 1)).numpy()])[0].shape == (2, 3, 16, 16, 16)
    int8, fp32 = (
        OpenVinoEngine(tmp_path / "p.xml", window=WINDOW, precision="int8"),
        OpenVinoEngine(program, window=WINDOW, precision="fp32"),
    )
    windows = torch.cat(noise(2, 1))
    share = float((int8(windows) - fp32(windows)).abs().max() / fp32(windows).abs().max())
    assert 1e-4 < share < 0.1
    assert int8.precision == "int8"


@pytest.mark.full
def test_the_first_and_last_convolutions_of_every_network_can_stay(tmp_path) -> None:
    model = quantize(program_of(2), noise(4), window=WINDOW, networks=2, ends_in_fp32=True)
    found = in_int8(model)
    assert len(found) == 10
    assert sum(found.values()) == 6
    ends = [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() == "Convolution" and is_end(op)]
    assert len(ends) == 4
    assert not any(found[name] for name in ends)


def is_end(convolution) -> bool:
    """It takes the image or gives the logits of three classes."""
    from_image = convolution.input_value(0).get_node().get_type_name() == "Parameter"
    return from_image or convolution.get_output_partial_shape(0)[1] == 3


@pytest.mark.full
def test_nncf_tells_nobody_and_leaves_pythons_loggers(tmp_path) -> None:
    """In a process of its own: NNCF is silent by itself wherever it sees pytest."""
    pytest.importorskip("nncf")
    code = (
        "import logging, sys; from decathlete.export.int8 import import_nncf; import_nncf();"
        "from nncf.telemetry import decorator; from nncf.telemetry.wrapper import NNCFTelemetry;"
        "print(isinstance(decorator.telemetry, NNCFTelemetry), logging.getLoggerClass() is logging.Logger)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.split() == ["False", "True"]


def test_without_nncf_it_says_what_to_install(monkeypatch) -> None:
    def import_module(name: str):
        if name == "nncf":
            raise ModuleNotFoundError(name)

    monkeypatch.setattr(extras, "import_module", import_module)
    with pytest.raises(
        OptionError, match=r'NNCF, which is not installed\n.*pip install "\.\[int8\]", or leave out --int8'
    ):
        quantize(b"", [], window=WINDOW, networks=1, ends_in_fp32=False)


@pytest.mark.parametrize("missing", [{"openvino", "nncf"}, {"nncf"}])
def test_one_extra_installs_all_that_int8_needs(monkeypatch, tmp_path, missing: set[str]) -> None:
    import_installed = extras.import_module

    def import_module(name: str):
        if name in missing:
            raise ModuleNotFoundError(name)
        return import_installed(name)

    monkeypatch.setattr(extras, "import_module", import_module)
    with pytest.raises(MissingPackageError) as problem:
        export_int8(tmp_path, tmp_path / "program")
    assert problem.value.extra == "int8"
