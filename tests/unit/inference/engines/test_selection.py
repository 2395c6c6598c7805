"""``--engine``: what auto takes, what is refused, and what stands in the record."""

from __future__ import annotations

import importlib
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from decathlete.errors import ModelError, OptionError
from decathlete.inference.engines import program_engines
from decathlete.inference.engines import selection as engine_choice
from decathlete.inference.engines.selection import resolve_engine
from decathlete.inference.predict import Predictor
from decathlete.inference.predict_files import predict_files
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from factories import make_test_plan, make_volumes


@pytest.fixture
def with_openvino(monkeypatch):
    monkeypatch.setattr(engine_choice, "openvino_is_there", lambda: True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"device": "cpu", "precision": "fp32"}, "openvino"),
        ({"device": "cpu", "precision": "bf16"}, "openvino"),
        ({"device": "cpu", "precision": "fp32", "layout": "channels_last"}, "torch"),
        ({"engine": "torch", "device": "cpu", "precision": "fp32"}, "torch"),
    ],
)
def test_auto_is_what_was_measured_to_be_faster(options, expected, with_openvino):
    assert resolve_engine(options.pop("engine", "auto"), **options) == (expected, torch.device("cpu"))


def test_auto_is_torch_where_openvino_is_not():
    assert resolve_engine("auto", device="cpu", precision="fp32")[0] == "torch"


def without(monkeypatch, *packages, problem=ModuleNotFoundError):
    def import_module(name):
        if name in packages:
            raise problem("libopenvino.so.9: cannot open shared object file")
        return importlib.import_module("json")

    monkeypatch.setattr(program_engines, "import_module", import_module)


@pytest.mark.parametrize(
    ("engine", "missing", "extra"),
    [("openvino", "openvino", "openvino"), ("onnx", "onnxruntime", "onnx"), ("onnx", "onnx", "onnx")],
)
def test_a_missing_package_is_told_with_what_to_install(engine, missing, extra, monkeypatch):
    without(monkeypatch, missing)
    with pytest.raises(OptionError, match=rf'is not installed\n.*pip install "\.\[{extra}\]"'):
        resolve_engine(engine)


def test_an_installation_that_does_not_load_is_told_and_torch_goes_on(monkeypatch, caplog):
    without(monkeypatch, "openvino", problem=ImportError)
    with pytest.raises(OptionError, match=r"does not load: libopenvino\.so"):
        resolve_engine("openvino")
    monkeypatch.setattr(engine_choice, "openvino_is_there", REALLY_THERE)
    assert resolve_engine("auto", device="cpu", precision="fp32")[0] == "torch"
    assert "torch predicts instead" in caplog.text


REALLY_THERE = engine_choice.openvino_is_there


@pytest.mark.parametrize(
    ("engine", "options", "said"),
    [
        ("tensorrt", {}, "choose auto, torch, openvino or onnx"),
        ("onnx", {"layout": "channels_last"}, "leave out --layout"),
        ("openvino", {"device": "cuda:99"}, "not available"),
    ],
)
def test_engines_and_options_that_do_not_go_together(engine, options, said, monkeypatch):
    without(monkeypatch)
    with pytest.raises(OptionError, match=said):
        resolve_engine(engine, **options)


@pytest.mark.parametrize("too_large", [False, True])
def test_what_openvino_does_not_compile_torch_computes_unless_it_was_asked_for(
    too_large, tmp_path, monkeypatch, with_openvino, caplog
):
    """Two models, one warning: both are computed by torch."""

    class Core:
        def read_model(self, program):
            return SimpleNamespace(reshape=lambda shape: None)

        def compile_model(self, *args):
            raise RuntimeError("Exception from src/core.cpp:1\nCannot create MVN layer\n")

    package = SimpleNamespace(Core=Core, Type=SimpleNamespace(f32=1, bf16=2))
    monkeypatch.setattr(program_engines, "imported", lambda name: package)
    monkeypatch.setattr(engine_choice, "imported", lambda name: package)

    def onnx_program(*args):
        if too_large:
            raise ModelError("has too many weights", remedy="choose --engine torch")
        return b""

    monkeypatch.setattr(engine_choice, "onnx_program", onnx_program)
    why = "has too many weights" if too_large else r"does not compile[^\n]*Cannot create MVN layer\)"
    plan = make_test_plan(2)
    models = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(models):
        ModelBundle.save(folder, TrainedMember(plan=plan, networks=[build_network(plan.network, seed=seed)]))
    with pytest.raises((OptionError, ModelError), match=rf"{why}\n.*--engine torch"):
        Predictor.load(models, device="cpu", precision="fp32", engine="openvino")
    assert not caplog.records
    predictor = Predictor.load(models, device="cpu", precision="fp32")
    assert [use.engine for use in predictor.settings.models] == ["torch", "torch"]
    (warning,) = caplog.records
    assert re.search(rf"{why}; torch predicts instead", warning.getMessage())


def test_an_engine_of_the_cpu_is_not_for_a_gpu(monkeypatch):
    without(monkeypatch)
    monkeypatch.setattr(engine_choice, "resolve_device", lambda device: torch.device(device))
    with pytest.raises(OptionError, match="computes on the CPU, not on cuda"):
        resolve_engine("openvino", device="cuda")


@pytest.mark.full
@pytest.mark.parametrize(("engine", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
@pytest.mark.parametrize("dims", [2, 3])
def test_predictions_are_torchs_and_the_record_names_the_engine(tmp_path, dims, engine, package):
    pytest.importorskip(package)
    plan = make_test_plan(dims, n_channels=2)
    state = {}
    for number in range(2):
        network = build_network(plan.network, seed=number)
        state[number] = network.state_dict()
    member = TrainedMember(plan=plan, networks=[state[0], state[1]], mirror_axes=tuple(range(dims)))
    ModelBundle.save(tmp_path / "m", member)
    image, _ = make_volumes((18, 24, 20), n_channels=2)
    found = {}
    for name in ("torch", engine):
        predictor = Predictor.load(tmp_path / "m", engine=name, precision="fp32", tta=True, batch_size=3)
        found[name] = predictor.predict(image, spacing=(1.0, 1.0, 1.0), probabilities=True)
        assert [model.engine for model in predictor.settings.models] == [name]
        assert predictor.device == torch.device("cpu")
    np.testing.assert_allclose(found[engine].probabilities_KZYX, found["torch"].probabilities_KZYX, atol=1e-4)


@pytest.mark.full
def test_auto_takes_openvino_where_it_is_and_other_engines_predictions_are_not_kept(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    from decathlete.core.geometry import Geometry
    from decathlete.errors import OutputError
    from decathlete.io.images import write_image

    monkeypatch.setattr(engine_choice, "openvino_is_there", REALLY_THERE)
    plan = make_test_plan()
    ModelBundle.save(tmp_path / "m", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)]))
    image, _ = make_volumes((18, 16, 16))
    write_image(tmp_path / "a.nii.gz", image, Geometry.plain((18, 16, 16), (1.0, 1.0, 1.0)))

    def predict(engine):
        predictor = Predictor.load(tmp_path / "m", device="cpu", precision="fp32", engine=engine)
        return predict_files(predictor, tmp_path / "a.nii.gz", tmp_path / "out")

    predict("auto")
    used = json.loads((tmp_path / "out" / "a.json").read_text())["settings"]["models"][0]
    assert (used["engine"], used["precision"]) == ("openvino", "fp32")
    assert predict("openvino")[0].kept
    with pytest.raises(OutputError, match="--overwrite"):
        predict("torch")
