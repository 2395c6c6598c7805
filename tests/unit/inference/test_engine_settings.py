"""Settings of inference engines: how they are chosen, that they reach the engine, and that the record has them."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from pydantic import Field
from torch import nn

from decathlete.core.geometry import Geometry
from decathlete.core.registry import ComponentSettings
from decathlete.errors import OptionError, OutputError
from decathlete.inference.engines import ENGINES, openvino
from decathlete.inference.engines.torch import TorchEngine
from decathlete.inference.options import PredictOptions
from decathlete.inference.predict import Predictor
from decathlete.inference.predict_files import PredictedFile, predict_files
from decathlete.io.images import read_label, write_image
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from factories import make_test_plan, make_volumes

SHAPE = (6, 24, 20)


@pytest.fixture(autouse=True)
def _engine() -> Iterator[None]:
    """An engine with a setting that changes what it predicts."""

    class BiasedEngine(TorchEngine):
        """PyTorch, with a preferred class."""

        class Settings(ComponentSettings):
            bias: float = Field(default=0.0, ge=-100, le=100)
            preferred: int | None = None

        settings: Settings

        @classmethod
        def from_network(cls, settings: Any, network: nn.Module, *args: Any, **kwargs: Any) -> Self:
            engine = super().from_network(settings, network, *args, **kwargs)
            engine.settings = settings
            return engine

        def __call__(self, windows: torch.Tensor) -> torch.Tensor:
            logits = super().__call__(windows)
            with torch.inference_mode():
                logits[:, self.settings.preferred or 0] += self.settings.bias
            return logits

    with ENGINES.isolated():
        ENGINES.register("biased")(BiasedEngine)
        yield


@pytest.fixture
def model(tmp_path: Path) -> Path:
    plan = make_test_plan(2)
    image, _ = make_volumes(SHAPE)
    write_image(tmp_path / "a.nii.gz", image, Geometry.plain(SHAPE, spacing_ZYX=(1.0, 1.0, 1.0)))
    network = build_network(plan.network, seed=0)
    return ModelBundle.save(tmp_path / "m", TrainedMember(plan=plan, networks=[network])).folder


def predict(model: Path, engine: Any) -> PredictedFile:
    predictor = Predictor.load(model, engine=engine, device="cpu", precision="fp32")
    (predicted,) = predict_files(predictor, model.parent / "a.nii.gz", model.parent / "out")
    return predicted


def test_the_record_has_the_settings_and_other_settings_are_noticed(model: Path) -> None:
    engine = {"name": "biased", "bias": 100, "preferred": 1}
    predicted = predict(model, engine)
    (used,) = json.loads(predicted.path.with_name("a.json").read_text())["settings"]["models"]
    assert (used["engine"], used["engine_settings"]) == ("biased", {"bias": 100.0, "preferred": 1})
    assert set(read_label(predicted.path).array_ZYX.ravel().tolist()) == {1}  # the setting has reached the engine
    assert predict(model, ENGINES.settings(engine)).kept
    for other in ({"name": "biased", "bias": 99, "preferred": 1}, "biased"):
        with pytest.raises(OutputError, match="other inputs or settings") as problem:
            predict(model, other)
        assert problem.value.code == "E-OUTPUT-EXISTS"


def test_a_record_of_an_engine_without_settings_is_as_before(model: Path) -> None:
    """Predictions of an older release are kept: they have no entry for settings."""
    predicted = predict(model, "torch")
    (used,) = json.loads(predicted.path.with_name("a.json").read_text())["settings"]["models"]
    assert "engine_settings" not in used
    assert predict(model, {"name": "torch"}).kept


def test_all_ways_to_choose_an_engine_are_equal() -> None:
    settings = ENGINES.settings({"name": "biased", "bias": 2})
    assert PredictOptions(engine={"name": "biased", "bias": 2}) == PredictOptions(engine=settings)
    assert PredictOptions(engine={"name": "auto"}) == PredictOptions(engine={}) == PredictOptions()
    assert PredictOptions(engine=settings).updated(tta=True).engine == settings


@pytest.mark.full
def test_another_process_gets_the_same_settings() -> None:
    """A worker of a cluster, which has not imported the engine."""
    code = (
        "import pickle, sys; options = pickle.loads(sys.stdin.buffer.read());"
        "print(options.engine.component, options.engine.threads)"
    )
    options = pickle.dumps(PredictOptions(engine={"name": "onnx", "threads": 3}))
    done = subprocess.run([sys.executable, "-c", code], input=options, capture_output=True, check=True)
    assert done.stdout.decode().split() == ["onnx", "3"]


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"name": "biased", "bais": 1}, "bais is not a setting of the engine biased"),
        ({"name": "biased", "bias": 101}, "bias: Input should be less than or equal to 100"),
        ({"name": "torch", "threads": 2}, r"threads is not a setting of the engine torch \(which has none\)"),
        ({"name": "onnx", "threads": 0}, "^engine onnx: threads: .*greater than or equal to 1"),
        ({"name": "auto", "threads": 2}, r"the engine auto has no settings \(threads\)"),
        ({"threads": 2}, r"the engine auto has no settings \(threads\)"),
        ({"name": "opnvino", "threads": 2}, "did you mean openvino"),
        ({"name": 3}, "needs a name"),
    ],
)
def test_settings_that_an_engine_does_not_have_are_found_at_once(engine: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        PredictOptions(engine=engine)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts the threads of the process by Linux's files")
def test_onnx_runtime_uses_the_number_of_threads(model: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    added = []
    for n_threads in (1, 4):
        before = n_running()
        predictor = Predictor.load(model, engine={"name": "onnx", "threads": n_threads}, precision="fp32")
        added.append(n_running() - before)
        assert predictor.settings.models[0].engine_settings == {"threads": n_threads}
        del predictor
    assert added == [0, 3]  # the thread that calls computes, too


def n_running() -> int:
    return len(list(Path("/proc/self/task").iterdir())) - threading.active_count()


def test_openvino_uses_the_number_of_threads(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    core, programs = openvino.openvino_core(), []

    class Core:
        read_model = staticmethod(core.read_model)

        @staticmethod
        def compile_model(*arguments: Any) -> Any:
            programs.append(core.compile_model(*arguments))
            return programs[-1]

    monkeypatch.setattr(openvino, "openvino_core", Core)
    for n_threads in (1, 2):
        Predictor.load(model, engine={"name": "openvino", "threads": n_threads}, precision="fp32")
    assert [program.get_property("INFERENCE_NUM_THREADS") for program in programs] == [1, 2]
