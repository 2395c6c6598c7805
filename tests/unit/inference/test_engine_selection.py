"""``--engine``: which engine ``auto`` chooses, what is rejected, and what the record says."""

from __future__ import annotations

import json
import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from decathlete.core import extras
from decathlete.errors import MissingPackageError, ModelError, OptionError
from decathlete.inference import engine_selection
from decathlete.inference.engine_selection import select_engines
from decathlete.inference.engines import ENGINES, _program
from decathlete.inference.engines.openvino import OpenVinoEngine
from decathlete.inference.engines.torch import TorchEngine
from decathlete.inference.options import PredictOptions
from decathlete.inference.predict import Predictor
from decathlete.inference.predict_files import predict_files
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from factories import make_test_plan, make_volumes

REAL_SPEED = OpenVinoEngine.__dict__["relative_speed"]


@pytest.fixture(autouse=True)
def _as_measured(monkeypatch):
    """Undo the session's preference for torch."""
    monkeypatch.setattr(OpenVinoEngine, "relative_speed", REAL_SPEED)


def selected(**options) -> list[str]:
    return [settings.component for settings in select_engines(PredictOptions(**options)).engines]


def install(monkeypatch, packages: dict[str, object]) -> None:
    """Make these the only optional packages; an exception is raised by the import."""

    def import_module(name: str) -> object:
        package = packages.get(name, ModuleNotFoundError(name))
        if isinstance(package, Exception):
            raise package
        return package

    monkeypatch.setattr(extras, "import_module", import_module)


EMPTY = ModuleType("empty")
ALL = {"openvino": EMPTY, "onnx": EMPTY, "onnxruntime": EMPTY}
BROKEN = ImportError("libopenvino.so.9: cannot open shared object file")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"precision": "fp32"}, ["openvino", "torch"]),
        ({"precision": "bf16"}, ["openvino", "torch"]),
        ({"precision": "fp32", "layout": "channels_last"}, ["torch"]),
        ({"precision": "fp32", "engine": "torch"}, ["torch"]),
        ({"precision": "fp32", "engine": "onnx"}, ["onnx"]),
    ],
)
def test_auto_prefers_what_was_measured_to_be_faster(options, expected, monkeypatch):
    install(monkeypatch, ALL)
    assert selected(device="cpu", **options) == expected


def test_auto_is_torch_where_nothing_else_is_installed(monkeypatch, caplog):
    install(monkeypatch, {})
    assert selected(device="cpu", precision="fp32") == ["torch"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("engine", "missing", "extra"),
    [("openvino", "openvino", "openvino"), ("onnx", "onnxruntime", "onnx"), ("onnx", "onnx", "onnx")],
)
def test_the_error_for_a_missing_package_names_the_extra(engine, missing, extra, monkeypatch):
    install(monkeypatch, {name: package for name, package in ALL.items() if name != missing})
    with pytest.raises(MissingPackageError, match=rf'is not installed\n.*pip install "\.\[{extra}\]"') as problem:
        selected(engine=engine)
    assert (problem.value.package, problem.value.broken) == (missing, False)
    assert "or choose --engine torch to predict without it" in str(problem.value)
    with pytest.raises(MissingPackageError) as of_export:  # there, another engine is no help
        ENGINES.resolve(engine).cls.check_available()
    assert "--engine" not in str(of_export.value)


def test_auto_warns_of_a_package_that_does_not_load(monkeypatch, caplog):
    install(monkeypatch, ALL | {"openvino": BROKEN})
    with pytest.raises(MissingPackageError, match=r"does not load: libopenvino\.so") as problem:
        selected(engine="openvino")
    assert problem.value.broken
    assert selected(device="cpu", precision="fp32") == ["torch"]
    assert "another engine predicts instead" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "onnx", "layout": "channels_last"}, "leave out --layout"),
        ({"engine": "openvino", "device": "cuda:99"}, "not available"),
        ({"engine": "onnx", "precision": "bf16"}, r"does not compute in bf16\n.*--precision fp32"),
        ({"engine": "onnx", "precision": "fp16"}, "not for CPUs"),
        ({"engine": "auto", "device": "cpu", "precision": "fp8"}, "unknown"),
    ],
)
def test_engines_and_options_that_exclude_each_other(options, message, monkeypatch):
    install(monkeypatch, ALL)
    with pytest.raises(OptionError, match=message):
        selected(**options)


def test_an_engine_of_the_cpu_is_not_for_a_gpu(monkeypatch):
    install(monkeypatch, ALL)
    monkeypatch.setattr(engine_selection, "resolve_device", lambda device: torch.device(device))
    with pytest.raises(OptionError, match="computes on cpu, not on cuda"):
        selected(engine="openvino", device="cuda")


@ENGINES.isolated()
def test_an_engine_is_one_module_and_auto_uses_it_where_it_is_faster(monkeypatch, tmp_path):
    """An engine that somebody else registers: by its name, or as ``module:Class``."""
    (tmp_path / "faster_engine.py").write_text(
        "from decathlete.inference.engines import ENGINES\n"
        "from decathlete.inference.engines.torch import TorchEngine\n"
        "@ENGINES.register('faster')\n"
        "class FasterEngine(TorchEngine):\n"
        "    @classmethod\n"
        "    def relative_speed(cls, device):\n"
        "        return 9.0\n"
        "    @classmethod\n"
        "    def supports(cls, plan):\n"
        "        return plan.dims == 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "faster_engine", raising=False)
    plans = {dims: make_test_plan(dims) for dims in (2, 3)}
    for dims, plan in plans.items():
        ModelBundle.save(
            tmp_path / f"{dims}d", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)])
        )
    install(monkeypatch, {})
    predictor = Predictor.load(tmp_path / "3d", engine="faster_engine:FasterEngine", device="cpu", precision="fp32")
    assert predictor.settings.models[0].engine == "faster"
    assert selected(device="cpu", precision="fp32") == ["faster", "torch"]
    with pytest.raises(OptionError, match="cannot compute this model's architecture"):
        Predictor.load(tmp_path / "2d", engine="faster", device="cpu")
    assert Predictor.load(tmp_path / "2d", device="cpu").settings.models[0].engine == "torch"


@pytest.mark.parametrize("too_large", [False, True])
def test_a_model_that_openvino_cannot_compute_falls_to_torch_unless_openvino_was_named(
    too_large, tmp_path, monkeypatch, caplog
):
    """Two models, one warning: both are computed by torch."""

    class Core:
        def read_model(self, program):
            return SimpleNamespace(reshape=lambda shape: None)

        def compile_model(self, *args):
            raise RuntimeError("Exception from src/core.cpp:1\nCannot create MVN layer\n")

    install(monkeypatch, {"openvino": SimpleNamespace(Core=Core, Type=SimpleNamespace(f32=1, bf16=2)), "onnx": EMPTY})

    def onnx_program(networks, *, window, n_outputs, alternative):
        if too_large:
            raise ModelError("has too many weights", remedy="choose --engine torch")
        return b""

    monkeypatch.setattr(_program, "onnx_program", onnx_program)
    reason = "has too many weights" if too_large else r"cannot compile[^\n]*Cannot create MVN layer\)"
    plan = make_test_plan(2)
    models = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(models):
        ModelBundle.save(folder, TrainedMember(plan=plan, networks=[build_network(plan.network, seed=seed)]))
    with pytest.raises((OptionError, ModelError), match=rf"{reason}\n.*--engine torch"):
        Predictor.load(models, device="cpu", precision="fp32", engine="openvino")
    assert not caplog.records
    predictor = Predictor.load(models, device="cpu", precision="fp32")
    assert [use.engine for use in predictor.settings.models] == ["torch", "torch"]
    (warning,) = caplog.records
    assert re.search(rf"{reason}; torch predicts instead", warning.getMessage())


def test_speeds_are_relative_to_torchs():
    assert TorchEngine.relative_speed(torch.device("cuda")) == 1
    assert OpenVinoEngine.relative_speed(torch.device("cpu")) > 1
    assert OpenVinoEngine.relative_speed(torch.device("cuda")) == 0


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
def test_auto_is_openvino_where_it_is_and_other_engines_predictions_are_not_kept(tmp_path):
    pytest.importorskip("openvino")
    from decathlete.core.geometry import Geometry
    from decathlete.errors import OutputError
    from decathlete.io.images import write_image

    plan = make_test_plan()
    ModelBundle.save(tmp_path / "m", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)]))
    image, _ = make_volumes((18, 16, 16))
    write_image(tmp_path / "a.nii.gz", image, Geometry.plain((18, 16, 16), spacing_ZYX=(1.0, 1.0, 1.0)))

    def predict(engine):
        predictor = Predictor.load(tmp_path / "m", device="cpu", precision="fp32", engine=engine)
        return predict_files(predictor, tmp_path / "a.nii.gz", tmp_path / "out")

    predict("auto")
    used = json.loads((tmp_path / "out" / "a.json").read_text())["settings"]["models"][0]
    assert (used["engine"], used["precision"]) == ("openvino", "fp32")
    assert predict("openvino")[0].kept
    with pytest.raises(OutputError, match="--overwrite"):
        predict("torch")
