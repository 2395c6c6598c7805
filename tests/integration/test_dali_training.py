"""Trainings fed by DALI, on the CPU: to a scored model, exactly resumed, on several processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from decathlete.cli.main import main
from decathlete.errors import Interrupted
from decathlete.models.bundle import ModelBundle
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.run import train
from training_support import KillAt, make_store, tiny_config

pytestmark = pytest.mark.full
pytest.importorskip("nvidia.dali")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return ModelBundle.load(run).build().state_dict()


def assert_same(one: Path, other: Path, atol: float = 0.0) -> None:
    for name, values in weights(one).items():
        torch.testing.assert_close(values, weights(other)[name], rtol=0, atol=atol)


@pytest.mark.parametrize("dim", ["2", "3"])
def test_run_leads_to_a_scored_model(tmp_path, monkeypatch, dim):
    make_phantoms(tmp_path / "data" / "Task98_Phantom", n_cases=4)
    length = ["--epochs", "2", "--steps-per-epoch", "60", "--n-folds", "2", "--filters", "8,16", "--device", "cpu"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["decathlete", "run", "98", "--dim", dim, "--loader", "dali", *length])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None)
    folder = tmp_path / "results" / "Task98_Phantom" / f"{dim}d" / "fold_0"
    record = ModelBundle.load(folder).record
    assert record.training_provenance["config"]["loader"] == "dali"
    assert json.loads((folder / "scores.json").read_text())["headline"]["dice"] > 0.7


def test_it_repeats_and_goes_on_exactly_and_augments(tmp_path):
    store, config = make_store(tmp_path / "store"), tiny_config(loader="dali", val_cases=0)
    whole = train(store, 0, tmp_path / "whole", config)
    with pytest.raises(Interrupted):
        train(store, 0, tmp_path / "stopped", config, progress=KillAt(5, signal.SIGINT))
    train(store, 0, tmp_path / "stopped", config.revised(readers=1), resume=True)
    assert_same(whole.folder, tmp_path / "stopped")
    threads = train(store, 0, tmp_path / "threads", config.revised(loader="threads"))
    with pytest.raises(AssertionError):
        assert_same(whole.folder, threads.folder)


def test_two_processes_equal_one_with_the_double_batch(tmp_path):
    store = make_store(tmp_path / "store")
    config = tiny_config(loader="dali", epochs=1, optimizer="sgd", gradient_clip=0, val_cases=0)
    one = train(store, 0, tmp_path / "one", config.revised(batch_size=2))
    two = train(store, 0, tmp_path / "two", config.revised(batch_size=1, devices=2))
    assert_same(one.folder, two.folder, atol=1e-4)
