"""A stopped training: the checkpoint resumes exactly, and its weights so far become a model."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from decathlete.core.geometry import Geometry
from decathlete.errors import InterruptedRunError, OutputError
from decathlete.inference.predict import Predictor
from decathlete.models.bundle import ModelBundle
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.loop import signals
from decathlete.training.loop.checkpoint import load_checkpoint
from decathlete.training.loop.module import SegmentationModule
from decathlete.training.reporting.records import RunRecord
from decathlete.training.run import train
from training_support import NO_AUGMENTATION, KillAt, make_ball, make_store, tiny_config

CONFIG = tiny_config(epochs=2, steps_per_epoch=50, val_cases=1, augmentation=NO_AUGMENTATION)
N_STEPS = 100


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> PreparedStore:
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory) -> Path:
    """A run that nothing stopped."""
    return train(store, 0, tmp_path_factory.mktemp("whole") / "run", CONFIG).folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return ModelBundle.load(run).build().state_dict()


def assert_resumes_to(whole: Path, store: PreparedStore, run: Path) -> None:
    """The run ends as if nothing had stopped it, bit for bit."""
    train(store, 0, run, CONFIG, resume=True)
    one, other = (load_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (whole, run))
    for part in ("network", "ema"):
        assert one[part].keys() == other[part].keys()
        assert all(torch.equal(one[part][name], other[part][name]) for name in one[part])
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(run).items())
    assert [e["step"] for e in one["state"]["history"]] == [e["step"] for e in other["state"]["history"]]
    provenance = [ModelBundle.load(folder).record.training_provenance for folder in (whole, run)]
    assert provenance[0].keys() == provenance[1].keys()
    assert not (run / "checkpoints" / "stopped.ckpt").exists()


def stop(store: PreparedStore, run: Path, step: int, number: int = signal.SIGINT) -> InterruptedRunError:
    """Train until ``step``: the signal comes after the step before, which the processes have agreed on."""
    with pytest.raises(InterruptedRunError) as caught:
        train(store, 0, run, CONFIG, progress=KillAt(step - 1, number), resume=run.exists())
    assert caught.value.exit_code == 128 + number
    return caught.value


def dice(run: Path) -> float:
    """Dice of both classes together, of a case that was not trained on."""
    image_ZYX, label_ZYX = make_ball(77)
    predictor = Predictor.load([run], device="cpu", precision="fp32")
    found_ZYX = predictor.predict(image_ZYX[None], geometry=Geometry.plain(label_ZYX.shape)).label_ZYX > 0
    return float(2 * (found_ZYX & (label_ZYX > 0)).sum() / (found_ZYX.sum() + (label_ZYX > 0).sum()))


def test_a_stopped_run_has_a_model_that_a_resumption_replaces(whole, store, tmp_path, caplog):
    run = tmp_path / "run"
    problem = stop(store, run, 60)
    assert "a model of its weights so far is in model/" in str(problem)
    assert "finishing: " in caplog.text
    assert RunRecord.load(run / "run.json").finished is None
    last = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert last["state"]["step"] == 60
    provenance = ModelBundle.load(run).record.training_provenance
    assert (provenance["stopped_at"], provenance["steps"]) == (0.6, 66)
    assert "Stopped, share of the planned training | 0.6" in (run / "model" / "MODEL_CARD.md").read_text()
    assert any(not torch.equal(value, last["ema"][name]) for name, value in weights(run).items())
    assert dice(run) > 0.7

    (run / "validation").mkdir()
    (run / "scores.json").write_text("{}")  # of the model that is replaced
    stop(store, run, 80)
    assert ModelBundle.load(run).record.training_provenance["stopped_at"] == 0.8
    assert not (run / "scores.json").exists()
    assert not (run / "validation").exists()
    assert_resumes_to(whole, store, run)


def test_stopped_after_the_last_step_the_model_has_the_final_weights(whole, store, tmp_path):
    stop(store, tmp_path / "run", N_STEPS)
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(tmp_path / "run").items())
    assert "stopped_at" in ModelBundle.load(tmp_path / "run").record.training_provenance
    assert_resumes_to(whole, store, tmp_path / "run")


def test_too_few_steps_keep_the_checkpoint_only(whole, store, tmp_path):
    problem = stop(store, tmp_path / "run", 19, signal.SIGTERM)
    assert "without a model: 19 training step(s) are too few for one" in str(problem)
    assert not (tmp_path / "run" / "model").exists()
    assert_resumes_to(whole, store, tmp_path / "run")


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once_and_the_run_resumes(whole, store, tmp_path, monkeypatch, second):
    start, made = SegmentationModule.start_finishing, []

    def start_and_insist(self: SegmentationModule) -> None:
        start(self)
        assert load_checkpoint(self.task.last_checkpoint)["state"]["step"] == 30
        os.kill(os.getpid(), second)
        made.append("more than a signal's time")

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(signals, "REPEAT_S", -1.0)
        patch.setattr(SegmentationModule, "start_finishing", start_and_insist)
        with pytest.raises(InterruptedRunError, match="ended by a second signal") as caught:
            train(store, 0, tmp_path / "run", CONFIG, progress=KillAt(29, signal.SIGINT))
    assert caught.value.exit_code == 128 + second
    assert made == []
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "run" / "model").exists()
    assert_resumes_to(whole, store, tmp_path / "run")


def test_a_failure_while_finishing_leaves_the_run_stopped(whole, store, tmp_path, monkeypatch, caplog):
    def full(self: SegmentationModule) -> None:
        raise OutputError("the disk is full", where=self.task.folder)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "save_stopped", full)
        stop(store, tmp_path / "run", 30)
    assert "the stopped training has no model" in caplog.text
    assert "the disk is full" in caplog.text
    assert_resumes_to(whole, store, tmp_path / "run")


def test_a_model_that_cannot_be_written_leaves_the_run_stopped(whole, store, tmp_path, monkeypatch, caplog):
    def full(*_: object) -> None:
        raise OutputError("the disk is full", where=tmp_path)

    with monkeypatch.context() as patch:
        patch.setattr("decathlete.training.run.save_stopped_model", full)
        problem = stop(store, tmp_path / "run", 30)
    assert "it is saved, without a model" in str(problem)
    assert "the stopped training has no model: " in caplog.text
    assert "the disk is full" in caplog.text
    assert_resumes_to(whole, store, tmp_path / "run")


def test_a_signal_before_the_first_step_stops_after_it(whole, store, tmp_path, monkeypatch):
    configure = SegmentationModule.configure_model

    def interrupted(self: SegmentationModule) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        configure(self)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "configure_model", interrupted)
        with pytest.raises(InterruptedRunError, match="without a model: 1 training step") as caught:
            train(store, 0, tmp_path / "run", CONFIG)
    assert caught.value.exit_code == 130
    assert_resumes_to(whole, store, tmp_path / "run")


def test_a_signal_after_the_last_step_ends_the_command_once_the_model_is_finished(whole, store, tmp_path):
    config = CONFIG.revised(validation={"cases": 0})
    with pytest.raises(InterruptedRunError, match="its model is finished") as caught:
        train(store, 0, tmp_path / "run", config, progress=KillAt(N_STEPS, signal.SIGTERM))
    assert caught.value.exit_code == 143
    assert RunRecord.load(tmp_path / "run" / "run.json").finished is not None
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(tmp_path / "run").items())


@pytest.mark.full
def test_several_processes_finish_together(store, tmp_path):
    config = tiny_config(epochs=1, steps_per_epoch=40, devices=2, val_cases=2, augmentation=NO_AUGMENTATION)
    with pytest.raises(InterruptedRunError, match="a model of its weights so far") as caught:
        train(store, 0, tmp_path / "run", config, progress=KillAt(21, signal.SIGTERM))
    assert caught.value.exit_code == 143
    step = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state"]["step"]
    assert 21 <= step < 40
    stopped = ModelBundle.load(tmp_path / "run").record.training_provenance
    assert (stopped["stopped_at"], stopped["steps"]) == (step / 40, step + round(step / 10))
    assert train(store, 0, tmp_path / "run", config, resume=True).steps == 40
    assert "stopped_at" not in ModelBundle.load(tmp_path / "run").record.training_provenance


@pytest.mark.full
def test_a_second_signal_ends_several_processes(store, tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "REPEAT_S", -1.0)
    config = tiny_config(epochs=1, steps_per_epoch=100_000, devices=2, val_cases=0, save_every_s=0.001)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"

    def insist() -> None:
        while not last.is_file():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=insist)
    thread.start()
    with pytest.raises(InterruptedRunError, match="ended by a second signal") as caught:
        train(store, 0, tmp_path / "run", config)
    thread.join()
    assert caught.value.exit_code == 130
    assert load_checkpoint(last)["state"]["step"] > 0
    assert not (tmp_path / "run" / "model").exists()
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
