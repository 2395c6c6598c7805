"""An int8 program is written only if held-out cases score as before; what it cost is told, and stands in its record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.core.geometry import Geometry
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import CasesFailedError, ModelError, OptionError, OutputError
from decathlete.export.exporters.triton import RepositoryRecord
from decathlete.export.triton_options import TritonSettings
from decathlete.inference.engines.openvino import OpenVinoEngine
from decathlete.inference.engines.torch import TorchEngine
from decathlete.inference.exported_program import ExportedFolder
from decathlete.inference.predict import Predictor
from decathlete.io.images import read_label, write_label
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.serving.triton.network_backends import OpenVinoBackend
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.workflows import export_int8 as workflow
from decathlete.workflows.dice_of_engine import dice_of_engine
from decathlete.workflows.export_int8 import export_int8
from decathlete.workflows.export_triton import export_triton
from factories import make_test_plan


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_phantoms(tmp_path / "Task07_Balls", n_cases=4, shape_ZYX=(18, 20, 16))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    plan = make_test_plan(3)
    return ModelBundle.save(
        tmp_path / "m", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)])
    ).folder


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What the programs score, in turn: fp32, int8, int8 with its ends in fp32."""
    for package in ("openvino", "onnx", "nncf"):
        pytest.importorskip(package)
    dice: list[float] = []
    monkeypatch.setattr(workflow, "dice_of_engine", lambda engine, **_: dice.pop(0))
    yield dice
    assert dice == []


def n_quantised(folder: Path) -> int:
    import openvino

    ops = openvino.Core().read_model(folder / "model.xml").get_ops()
    return sum(op.get_type_name() == "FakeQuantize" for op in ops)


@pytest.mark.full
def test_a_fall_below_the_limit_is_accepted_and_recorded(dataset, model, scored, tmp_path) -> None:
    scored += [0.9, 0.8981]
    made = export_int8(model, tmp_path / "p", dataset=dataset)
    assert sorted(path.name for path in made.path.iterdir()) == ["model.bin", "model.xml", "program.json"]
    found = ExportedFolder(tmp_path / "p")
    assert found.record.precision == "int8"
    assert found.record.quantisation == made.quantisation
    assert (made.quantisation.dice_fp32, made.quantisation.dice_int8) == (0.9, 0.8981)
    assert (made.quantisation.validated_on, made.quantisation.calibrated_on) == (1, 12)  # 3 cases, 4 windows each
    assert isinstance(found.load(), OpenVinoEngine)


@pytest.mark.full
def test_the_program_is_the_network_of_a_triton_repository(dataset, model, scored, tmp_path) -> None:
    scored += [0.9, 0.9]
    settings = TritonSettings(name="a", models="network", format="openvino", precision="int8")
    export_triton(model, tmp_path / "r", settings=settings, dataset=dataset)
    folder = tmp_path / "r" / "a_network"
    assert RepositoryRecord.load(folder / "decathlete.json").precision == "int8"
    assert n_quantised(folder / "1") > 0
    with pytest.raises(OptionError, match="--input has no effect with --precision int8"):
        export_triton(model, tmp_path / "r2", settings=settings, dataset=dataset, inputs=dataset)
    windows = torch.randn(3, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = build_network(make_test_plan(3).network, seed=0).eval()(windows)
    served = OpenVinoBackend().load(folder / "1" / "model.xml", {})(windows)
    assert torch.corrcoef(torch.stack([served.flatten(), expected.flatten()]))[0, 1] > 0.95  # coarse for noise


@pytest.mark.full
def test_where_all_in_int8_costs_too_much_the_ends_stay(dataset, model, scored, tmp_path) -> None:
    scored += [0.9, 0.9]
    export_int8(model, tmp_path / "all", dataset=dataset)
    scored += [0.9, 0.897, 0.9]
    made = export_int8(model, tmp_path / "p", dataset=dataset)
    assert made.quantisation.dice_int8 == 0.9
    assert 0 < n_quantised(tmp_path / "p") < n_quantised(tmp_path / "all")


@pytest.mark.full
def test_a_fall_of_the_limit_is_refused_and_nothing_is_written(dataset, model, scored, tmp_path) -> None:
    scored += [0.9, 0.89, 0.898]
    before = sorted(tmp_path.iterdir())
    said = r"cases from 0.9000 to 0.8980, by 0.0020; it must be less than 0.002.*nothing was written\n.*--int8"
    with pytest.raises(ModelError, match=said):
        export_int8(model, tmp_path / "p", dataset=dataset)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.full
def test_what_is_in_the_way_is_told_before_any_work(dataset, model, scored, tmp_path) -> None:
    (tmp_path / "p").mkdir()
    with pytest.raises(OutputError, match="not an exported program"):
        export_int8(model, tmp_path / "p", dataset=dataset, overwrite=True)
    with pytest.raises(OptionError, match="--dataset"):
        export_int8(model, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_dice_is_that_of_the_files_own_grids(dataset, model) -> None:
    """Each truth is what the network itself predicts: 1; with one of the cases painted over, less."""
    bundle = ModelBundle.load(model)
    plan, engine = bundle.record.plan, TorchEngine(bundle.build(), precision="fp32")
    predictor = Predictor.load(model, device="cpu", engine="torch", precision="fp32")
    cases = read_dataset(dataset).cases
    for case in cases:
        predicted = predictor.predict(case.images[0])
        write_label(case.label, predicted.label_ZYX, predicted.geometry)
    told: list[Any] = []
    assert dice_of_engine(engine, plan, cases, progress=lambda *a: told.append(a)) == 1.0
    assert [done for done, _, _ in told] == [1, 2, 3, 4]
    empty = np.zeros((18, 20, 16), np.uint8)
    write_label(cases[0].label, empty, predicted.geometry)
    assert dice_of_engine(engine, plan, cases) == pytest.approx(0.75)
    write_label(cases[1].label, empty + 9, Geometry.plain(empty.shape))
    with pytest.raises(CasesFailedError, match=r"phantom_001: .*values that the model does not know \(9\)"):
        dice_of_engine(engine, plan, cases)


def test_structures_that_were_not_annotated_are_not_scored(dataset, model, monkeypatch) -> None:
    bundle = ModelBundle.load(model)
    plan, engine = bundle.record.plan, TorchEngine(bundle.build(), precision="fp32")
    case = read_dataset(dataset).cases[0]
    truth = read_label(case.label).array_ZYX
    assert set(np.unique(truth)) == {0, 1, 2}
    monkeypatch.setattr(Predictor, "compute", lambda self, _: SimpleNamespace(label_ZYX=truth))
    write_label(case.label, np.where(truth == 2, 0, truth), read_label(case.label).geometry)
    assert dice_of_engine(engine, plan, [case]) == 0.5
    assert dice_of_engine(engine, plan, [replace(case, unannotated=(2,))]) == 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--int8 --input x", "--input has no effect with --int8"),
        ("--calibration x --dataset y", "--calibration and --dataset without --int8 has no effect"),
    ],
)
def test_options_without_effect_are_refused(options, said, tmp_path) -> None:
    told = CliRunner().invoke(app, f"export openvino {tmp_path} --output {tmp_path / 'p'} {options}".split())
    assert said in str(told.exception)
