"""A training that begins on a coarse grid and continues on the plan's own, with the same weights."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from decathlete.cli.progress import Bar, EpochLines
from decathlete.errors import InterruptedRunError, PlanError, StoreError
from decathlete.models.bundle import ModelBundle
from decathlete.planning.plan import CoarseStart
from decathlete.preprocessing.store import COARSE_START, PreparedStore
from decathlete.training.loop import epoch_batches
from decathlete.training.loop.module import SegmentationModule
from decathlete.training.reporting.records import Logs
from decathlete.training.run import train
from factories import make_test_plan
from training_support import KillAt, SimulatedClock, make_store, tiny_config

COARSE = (2.0, 2.0, 2.0)
CONFIG = tiny_config(epochs=4, steps_per_epoch=12)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> PreparedStore:
    folder = tmp_path_factory.mktemp("store")
    plan = make_test_plan(target_spacing=(1.0, 1.0, 1.0), coarse_start=CoarseStart(target_spacing=COARSE))
    make_store(folder, plan=plan)
    make_store(folder / COARSE_START, plan=plan.on_coarse_grid())
    return PreparedStore.open(folder)


@pytest.fixture
def read_from(monkeypatch) -> list[tuple[str, int]]:
    """Name of the folder and first step of each loader that a training makes."""
    made = []
    make_loader = epoch_batches.make_loader

    def noted(task, device, *, first_step):
        made.append((task.store.name, first_step))
        return make_loader(task, device, first_step=first_step)

    monkeypatch.setattr(epoch_batches, "make_loader", noted)
    return made


@pytest.fixture
def validated_on(monkeypatch) -> list[bool]:
    """Whether each validator that a training makes is that of the coarse grid."""
    made = []
    validator = SegmentationModule.validator

    def noted(self, *, coarse):
        made.append(coarse)
        return validator(self, coarse=coarse)

    monkeypatch.setattr(SegmentationModule, "validator", noted)
    return made


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory) -> Path:
    """A run that nothing stopped."""
    return train(store, 0, tmp_path_factory.mktemp("whole") / "run", CONFIG).folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return ModelBundle.load(run).build().state_dict()


def assert_same(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_half_of_the_epochs_read_and_validate_the_coarse_grid(store, whole, tmp_path, read_from, validated_on, caplog):
    with caplog.at_level("INFO"):
        result = train(store, 0, tmp_path / "run", CONFIG)
    assert read_from == [(COARSE_START, 0), (store.folder.name, 24)]
    assert validated_on == [True, False]
    assert caplog.text.count("the coarse start is over") == 1
    assert_same(whole, result.folder)
    assert result.best_epoch in (2, 3), "a Dice on the coarse grid is not compared with one on the plan's own"
    epochs = Logs.load(result.folder / "logs.json").epochs
    assert [record.best_epoch is None for record in epochs] == [True, True, False, False]
    assert [record.coarse for record in epochs] == [True, True, False, False]
    assert [record.described_dice.endswith("(coarse grid)") for record in epochs] == [True, True, False, False]
    assert ModelBundle.load(result.folder).record.plan == store.plan


@pytest.mark.parametrize("step", [5, 24, 30])
def test_stopped_and_resumed_equals_never_stopped(store, whole, tmp_path, step):
    with pytest.raises(InterruptedRunError):
        train(store, 0, tmp_path / "run", CONFIG, progress=KillAt(step, signal.SIGINT))
    result = train(store, 0, tmp_path / "run", CONFIG, resume=True)
    assert_same(whole, result.folder)


def test_slices_have_a_coarse_start_too(tmp_path):
    start = CoarseStart(target_spacing=(None, 2.0, 2.0))
    plan = make_test_plan(2, target_spacing=(None, 1.0, 1.0), coarse_start=start)
    store = make_store(tmp_path / "store", plan=plan)
    make_store(store.folder / COARSE_START, plan=plan.on_coarse_grid())
    result = train(store, 0, tmp_path / "run", tiny_config(epochs=2))
    assert [record.coarse for record in Logs.load(result.folder / "logs.json").epochs] == [True, False]


@pytest.mark.parametrize(("step", "spacing"), [(22, COARSE), (40, (1.0, 1.0, 1.0))])
def test_the_model_of_a_stopped_training_has_the_grid_that_it_was_trained_on(store, tmp_path, step, spacing):
    with pytest.raises(InterruptedRunError, match="a model of its weights so far"):
        train(store, 0, tmp_path / "run", CONFIG, progress=KillAt(step, signal.SIGINT))
    assert ModelBundle.load(tmp_path / "run").record.plan.target_spacing == spacing


def test_another_share_may_be_set_for_a_training_and_another_grid_not(store, tmp_path, read_from):
    plan = store.plan.revised(coarse_start=CoarseStart(target_spacing=COARSE, share=0.25))
    train(store, 0, tmp_path / "run", CONFIG, plan=plan)
    assert read_from == [(COARSE_START, 0), (store.folder.name, 12)]
    other = store.plan.revised(coarse_start=CoarseStart(target_spacing=(3.0, 3.0, 3.0)))
    with pytest.raises(PlanError, match="is to begin on a grid of"):
        train(store, 0, tmp_path / "other", CONFIG, plan=other)
    assert not (tmp_path / "other").exists()


def test_a_coarse_start_that_is_shorter_than_an_epoch_is_warned_of(store, tmp_path, read_from, caplog):
    plan = store.plan.revised(coarse_start=CoarseStart(target_spacing=COARSE, share=0.4))
    config = tiny_config(epochs=2, steps_per_epoch=1, val_cases=0)
    train(store, 0, tmp_path / "run", config, plan=plan)
    assert [name for name, _ in read_from] == [store.folder.name]
    assert "its coarse start, 40 % of the training, is shorter than one of 2 epoch(s)" in caplog.text
    caplog.clear()
    train(store, 0, tmp_path / "other", config)
    assert "shorter than one" not in caplog.text


def test_a_time_is_divided_between_the_grids(store, tmp_path, read_from):
    clock, heard = SimulatedClock(), []

    class Ticking:
        """Lets every step take half a second."""

        def on_step(self, step, progress):
            clock.now_s += 0.5

        def on_epoch(self, record):
            heard.append(record)

    train(store, 0, tmp_path / "run", tiny_config(epochs=None, max_time_s=40), progress=Ticking(), clock=clock)
    n_coarse = sum(record.coarse for record in heard)
    assert n_coarse == len(heard) // 2
    assert [name for name, _ in read_from] == [COARSE_START, store.folder.name]
    assert heard[n_coarse - 1].elapsed == pytest.approx(20, abs=2)


def test_the_command_line_shows_epochs_of_both_grids(store, whole, capsys):
    lines = EpochLines(Bar(Console(), "train"))
    for record in Logs.load(whole / "logs.json").epochs:
        lines.on_epoch(record)
    shown = capsys.readouterr().err
    assert shown.count("(coarse grid)") == 2
    assert shown.count("(best 0.") == 2


def test_the_curves_of_loggers_tell_the_grids_apart(store, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    logged = []
    monkeypatch.setattr(TensorBoardLogger, "log_metrics", lambda self, values, step: logged.append(values))
    config = tiny_config(epochs=2, steps_per_epoch=1, val_cases=0, loggers=("tensorboard",))
    train(store, 0, tmp_path / "both", config)
    assert [values["coarse"] for values in logged] == [1, 0]
    train(store, 0, tmp_path / "one", config, plan=store.plan.revised(coarse_start=None))
    assert len(logged) == 4
    assert "coarse" not in logged[-1]


def test_a_store_without_the_coarse_grid_is_rejected(store, tmp_path):
    bare = make_store(tmp_path / "bare", plan=store.plan)
    with pytest.raises(StoreError, match="does not exist"):
        train(bare, 0, tmp_path / "run", CONFIG)
    with pytest.raises(PlanError, match="were not prepared on a coarse grid"):
        train(make_store(tmp_path / "single"), 0, tmp_path / "run", CONFIG, plan=store.plan)
    without = train(bare, 0, tmp_path / "run", tiny_config(epochs=1), plan=store.plan.revised(coarse_start=None))
    assert ModelBundle.load(without.folder).record.plan.coarse_start is None
