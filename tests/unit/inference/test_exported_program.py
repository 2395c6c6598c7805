"""Exported programs as models to predict with: their own runtime and precision, whole or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from decathlete.errors import ModelError, OptionError, OutputError
from decathlete.export.programs import program_folder
from decathlete.inference import exported_program
from decathlete.inference.exported_program import ExportedFolder, ProgramRecord, options_for_programs
from decathlete.inference.options import PredictOptions
from decathlete.inference.predict import Predictor
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.workflows.export_model import export_onnx, export_openvino
from factories import make_test_plan, make_volumes


@pytest.fixture
def model(tmp_path) -> Path:
    plan = make_test_plan(3)
    member = TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)], mirror_axes=(0,))
    return ModelBundle.save(tmp_path / "m", member).folder


@pytest.fixture
def stub(tmp_path) -> Path:
    """A program's folder by its files alone."""
    plan = make_test_plan(3)
    folder = tmp_path / "stub"
    folder.mkdir()
    (folder / "model.xml").write_text("<net/>")
    record = ProgramRecord(
        model="m", weights="final", networks=1, plan=plan, mirror_axes=(), window=(1, 16, 16, 16),
        output=(3, 16, 16, 16), tolerance=1e-3, sha256={"model.xml": "0" * 64},
    )  # fmt: skip
    record.save(folder / "program.json")
    return folder


@pytest.mark.full
@pytest.mark.parametrize(("export", "engine"), [(export_openvino, "openvino"), (export_onnx, "onnx")])
def test_a_programs_folder_predicts_what_its_model_predicts(export, engine, model, tmp_path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip({"onnx": "onnxruntime"}.get(engine, engine))
    export(model, tmp_path / "p")
    image, _ = make_volumes((18, 24, 20))
    found = {}
    for folder, options in ((model, {"engine": "torch", "precision": "fp32", "device": "cpu"}), (tmp_path / "p", {})):
        predictor = Predictor.load(folder, tta=True, **options)
        found[folder] = predictor.predict(image, spacing=(1.0, 1.0, 1.0), probabilities=True).probabilities_KZYX
    (used,) = predictor.settings.models
    assert (used.engine, used.precision, used.digest) == (engine, "fp32", ExportedFolder(tmp_path / "p").digest)
    np.testing.assert_allclose(found[tmp_path / "p"], found[model], atol=1e-4)
    with_settings = Predictor.load(tmp_path / "p", engine={"name": engine, "threads": 2})
    assert with_settings.settings.models[0].engine_settings == {"threads": 2}
    assert with_settings.ensembles[0].engines[0].threads == 2
    with pytest.raises(OptionError, match="an exported program has its own engine"):
        Predictor.load(tmp_path / "p", engine={"name": {"onnx": "openvino"}.get(engine, "onnx"), "threads": 2})
    both = Predictor.load([model, tmp_path / "p"], engine="torch", precision="fp32", tta=True)
    assert len(both.ensembles[0].engines) == 2  # one plan, one sweep
    mean = both.predict(image, spacing=(1.0, 1.0, 1.0), probabilities=True).probabilities_KZYX
    np.testing.assert_allclose(mean, found[model], atol=1e-4)


@pytest.mark.full
def test_a_changed_file_is_refused(model, tmp_path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    export_openvino(model, tmp_path / "p")
    weights = tmp_path / "p" / "model.bin"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match=r"not the file that program.json describes\n.*export the model again"):
        Predictor.load(tmp_path / "p")
    weights.unlink()
    with pytest.raises(ModelError, match=r"has no model.bin"):
        Predictor.load(tmp_path / "p")


def test_a_record_that_is_not_whole_or_names_other_files_is_refused(stub) -> None:
    with pytest.raises(ModelError, match="is not the file"):
        ExportedFolder(stub)
    content = json.loads((stub / "program.json").read_text())
    (stub / "program.json").write_text(json.dumps(content | {"sha256": {}}))
    with pytest.raises(ModelError, match="describes no program"):
        ExportedFolder(stub)
    (stub / "program.json").write_text(json.dumps({"version": 7}))
    with pytest.raises(ModelError, match="plan: Field required"):
        ExportedFolder(stub)


def test_a_damaged_record_can_be_repaired_as_the_messages_say(stub) -> None:
    """Without the record nothing tells that the folder may be replaced."""
    (stub / "program.json").write_bytes((stub / "program.json").read_bytes()[:-50])
    with pytest.raises(ModelError, match="→ delete the folder of the program, and export the model again"):
        ExportedFolder(stub)
    with (
        pytest.raises(OutputError, match="or delete it if it is a damaged export"),
        program_folder(stub, overwrite=True),
    ):
        pass
    assert (stub / "model.xml").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "cuda"}, "computes on cpu, not on cuda"),
        ({"engine": "torch"}, r"its own engine\n.*leave out --engine"),
        ({"engine": "onnx"}, "its own engine"),
        ({"precision": "fp32", "layout": "channels_last"}, "its own precision, layout"),
    ],
)
def test_options_that_a_program_cannot_follow(options, said, stub, monkeypatch) -> None:
    monkeypatch.setattr(exported_program, "resolve_device", torch.device)
    with pytest.raises(OptionError, match=said):
        options_for_programs([stub], PredictOptions(**options))


def test_programs_are_for_the_cpu_and_models_beside_them_take_the_options(stub, tmp_path) -> None:
    def device(folders, **options):
        return options_for_programs(folders, PredictOptions(**options)).device

    assert device([stub]) == "cpu"
    assert device([stub], engine="openvino", device="cpu") == "cpu"
    assert device([stub, tmp_path], engine="torch", precision="fp32") == "cpu"
    assert device([tmp_path], device="cuda") == "cuda"
