"""What an exported program is compared on, unless images are named: the cases of the model's own run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.export.windows import case_windows
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.planning.plan import Plan
from decathlete.preprocessing.store import PreparedStore
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.config import TrainConfig
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.export_model import load_comparison_windows
from factories import make_test_plan
from training_support import make_store


@pytest.fixture
def store(tmp_path: Path) -> PreparedStore:
    return make_store(tmp_path / "store")


def run_on(store: PreparedStore, folder: Path, *, root: Path | None = None, **cases: tuple[str, ...]) -> Path:
    folder.mkdir(exist_ok=True)
    RunRecord(
        version="0", dataset="Test", dataset_root=root and str(root), dataset_digest="d", prepared=str(store.folder),
        dims=3, fold=0 if cases["val"] else "all", config=TrainConfig(epochs=1), plan_digest="p", started="now",
        **cases,
    ).save(folder / "run.json")  # fmt: skip
    return folder


def windows_and_origin(model: Path, plan: Plan) -> tuple[Sequence[torch.Tensor], str]:
    check = load_comparison_windows(model, plan)
    return check.windows, check.origin


def middle(store: PreparedStore, case_id: str) -> torch.Tensor:
    return case_windows(store.case(case_id).read_image(), store.plan, 1)[0]


def test_held_out_cases_come_first_then_those_trained_on(store: PreparedStore, tmp_path: Path) -> None:
    run = run_on(store, tmp_path / "fold", train=("case0", "case1"), val=("case4", "case5"))
    windows, said = windows_and_origin(run / "model", store.plan)
    assert said == "cases that the run held out"
    assert [torch.equal(w, middle(store, c)) for w, c in zip(windows, ("case4", "case5"), strict=True)] == [True] * 2
    run = run_on(store, tmp_path / "fold", train=("case0", "case1", "case2", "case3"), val=())
    windows, said = windows_and_origin(run, store.plan)
    assert (len(windows), said) == (3, "the run's training cases")
    assert torch.equal(windows[0], middle(store, "case0"))


def test_raw_cases_serve_where_prepared_ones_are_gone_and_noise_where_both_are(
    store: PreparedStore, tmp_path: Path
) -> None:
    root = make_phantoms(tmp_path / "Task07_Balls", n_cases=2, shape_ZYX=(20, 20, 20))
    run = run_on(store, tmp_path / "fold", root=root, train=("case0",), val=("phantom_001",))
    windows, said = windows_and_origin(run, store.plan)
    assert (len(windows), said) == (1, "cases that the run held out")
    assert windows[0].shape == (1, 1, 16, 16, 16)
    shutil.rmtree(root / "imagesTr")
    windows, said = windows_and_origin(run, store.plan)
    assert (len(windows), said.startswith("smooth noise, since no case")) == (3, True)
    assert load_comparison_windows(tmp_path / "alone", store.plan).origin == said
    assert windows[0].isfinite().all()


@pytest.mark.full
def test_the_command_says_what_it_compared_on(store: PreparedStore, tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    plan = make_test_plan()
    run = run_on(store, tmp_path / "fold", train=("case0",), val=("case4", "case5"))
    ModelBundle.save(run / "model", TrainedMember(plan=plan, networks=[build_network(plan.network, seed=0)]))
    told = CliRunner().invoke(app, f"export onnx {run} --output {tmp_path / 'net.onnx'}".split())
    assert told.exit_code == 0, told.output
    assert "on 2 windows of cases that the run held out" in told.output
