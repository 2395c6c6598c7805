"""Resuming from a checkpoint that lacks parts or holds other things, and training on damaged prepared data."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from decathlete.errors import InterruptedRunError, ModelError, StoreError
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.loop.checkpoint import load_checkpoint, save_checkpoint
from decathlete.training.reporting.records import RunRecord
from decathlete.training.run import train
from training_support import KillAt, make_store, tiny_config

Content = dict[str, Any]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> PreparedStore:
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def stopped(store, tmp_path_factory) -> Path:
    """A run that was stopped in its second epoch."""
    folder = tmp_path_factory.mktemp("results") / "run"
    with pytest.raises(InterruptedRunError):
        train(store, 0, folder, tiny_config(), progress=KillAt(6, signal.SIGINT))
    return folder


@pytest.fixture
def run(stopped, tmp_path) -> Path:
    shutil.copytree(stopped, tmp_path / "run")
    return tmp_path / "run"


def without(name: str) -> Callable[[Content], None]:
    return lambda content: content.pop(name)


def first_tensor(content: Content, part: str, convert: Callable[[torch.Tensor], Any]) -> None:
    name = next(iter(content[part]))
    content[part][name] = convert(content[part][name])


DAMAGE: dict[str, Callable[[Content], Any]] = {
    "no network": without("network"),
    "no averaged weights": without("ema"),
    "no optimizer": without("optimizer"),
    "no scaler": without("scaler"),
    "no state": without("state"),
    "an empty state": lambda content: content.update(state={}),
    "a state without its step": lambda content: content["state"].pop("step"),
    "an unknown counter": lambda content: content["state"].update(stray=1),
    "a state that is a list": lambda content: content.update(state=[1]),
    "an empty optimizer": lambda content: content.update(optimizer={}),
    "no groups": lambda content: content["optimizer"].update(param_groups=[]),
    "another shape": lambda content: first_tensor(content, "network", lambda value: value[:1]),
    "a sparse tensor": lambda content: first_tensor(content, "network", torch.Tensor.to_sparse),
    "a network that is a list": lambda content: content.update(network=[torch.ones(1)]),
    "averaged weights that are numbers": lambda content: content.update(ema={"a": 1.0}),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_checkpoints_are_named_and_nothing_is_lost(store, run, name):
    path = run / "checkpoints" / "last.ckpt"
    content = load_checkpoint(path)
    del content["version"]
    DAMAGE[name](content)
    save_checkpoint(path, content)
    damaged = path.read_bytes()
    with pytest.raises(ModelError, match="damaged") as caught:
        train(store, 0, run, tiny_config(), resume=True)
    assert caught.value.where == path
    assert caught.value.code == "E-MODEL-DAMAGED"
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("name", ["no averaged weights", "averaged weights that are numbers", "no state"])
def test_damage_before_the_model_is_written(store, run, name):
    train(store, 0, run, tiny_config(), resume=True)
    path = run / "checkpoints" / "best.ckpt" if "averaged" in name else run / "checkpoints" / "last.ckpt"
    content = load_checkpoint(path)
    del content["version"]
    DAMAGE[name](content)
    save_checkpoint(path, content)
    RunRecord.load(run / "run.json").revised(finished=None).save(run / "run.json")
    with pytest.raises(ModelError, match="damaged") as caught:
        train(store, 0, run, tiny_config(), resume=True)
    assert caught.value.where == path


def test_the_remedy_works(store, run):
    (run / "checkpoints" / "last.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(ModelError, match="train again with --overwrite"):
        train(store, 0, run, tiny_config(), resume=True)
    assert train(store, 0, run, tiny_config(), overwrite=True).steps == 8


def test_damaged_prepared_data_stop_the_training(store, tmp_path):
    folder = tmp_path / "prepared"
    shutil.copytree(store.folder, folder)
    path = folder / "cases" / "case1" / "image.b2nd"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(StoreError, match="does not match its checksum") as caught:
        train(PreparedStore.open(folder), 0, tmp_path / "run", tiny_config())
    assert caught.value.where == path
    assert "run `decathlete preprocess` again" in str(caught.value.remedy)
