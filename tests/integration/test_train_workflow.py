"""``train``: the plan that a run trains by is the one that is kept, told and gone on with."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from decathlete.errors import InterruptedRunError, OptionError, OutputError
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.networks.build import build_network
from decathlete.planning import compute_budget as budget
from decathlete.planning.adaptation import training_steps
from decathlete.planning.options import PlanOptions
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.distributed.devices import choose_hardware
from decathlete.training.loop.task import TrainTask
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.budget import compute_budget
from decathlete.workflows.run import run
from decathlete.workflows.train import make_training_plan, train, train_config
from decathlete.workflows.workspace import Workspace
from factories import make_test_network, make_test_plan
from training_support import N_CASES, KillAt, SimulatedClock, make_store, tiny_config

WIDE = make_test_network().revised(features=(12, 24))

training_plan = partial(make_training_plan, n_cases=N_CASES)
TIMED = tiny_config(epochs=None, max_time_s=12.0, val_cases=0)


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    """A prepared dataset; 32 threads have time for its plan, and one thread makes the network 8 wide."""
    (tmp_path / "data" / "Test").mkdir(parents=True)
    make_store(tmp_path / "prepared" / "Test" / "3d", plan=make_test_plan(network=WIDE))
    speed = budget.Speed(gflops=10.0, elements=3.6)
    monkeypatch.setattr(budget, "CPU_SPEED", dict.fromkeys(budget.CPU_SPEED, speed))
    return Workspace(data=tmp_path / "data", prepared=tmp_path / "prepared", results=tmp_path / "results")


def threads(monkeypatch, n: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(n)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: n)


class OneSecondSteps:
    """Progress that lets each step take a second on a simulated clock."""

    def __init__(self, clock: SimulatedClock) -> None:
        self.clock = clock

    def on_step(self, step: int, progress: float) -> None:
        self.clock.now_s += 1.0

    def on_epoch(self, record: object) -> None:
        pass


def start(workspace: Workspace, monkeypatch, config=TIMED, **options):
    """Begin with 32 threads, and be stopped after three steps; no time passes."""
    threads(monkeypatch, 32)
    options |= {"progress": KillAt(3, signal.SIGINT), "clock": SimulatedClock()}
    with pytest.raises(InterruptedRunError):
        train("Test", workspace=workspace, config=config, **options)
    return workspace.run_folder("Test", 3, 0)


def test_a_run_goes_on_by_its_own_plan_on_another_number_of_threads(workspace, monkeypatch):
    folder = start(workspace, monkeypatch)
    store = PreparedStore.open(workspace.prepared_folder("Test", 3))
    threads(monkeypatch, 1)
    assert training_plan(store.plan, TIMED, adapt=True).network.features == (8, 16), "by itself it would be another"
    clock = SimulatedClock()
    result = train("Test", workspace=workspace, config=TIMED, resume=True, progress=OneSecondSteps(clock), clock=clock)
    assert result.steps > 4
    plan = ModelBundle.load(folder).record.plan
    assert plan.network.features == (12, 24)
    assert RunRecord.load(folder / "run.json").plan == plan


def test_a_fold_with_less_time_has_the_plan_of_the_others(workspace, monkeypatch):
    threads(monkeypatch, 4)
    store = PreparedStore.open(workspace.prepared_folder("Test", 3))
    other = training_plan(store.plan, TIMED.revised(max_time_s=600.0), adapt=True)
    short = TIMED.revised(max_time_s=4.0)
    assert training_plan(store.plan, short, adapt=True).network != other.network, "by itself it would be another"
    clock = SimulatedClock()
    result = train(
        "Test", workspace=workspace, config=short, plan_time_s=600.0, progress=OneSecondSteps(clock), clock=clock
    )
    assert result.steps <= 4
    record = RunRecord.load(result.folder / "run.json")
    assert record.plan == other
    assert record.config.max_time_s == 4.0


def test_a_training_of_days_is_announced(workspace, monkeypatch, caplog):
    config = tiny_config(epochs=2, steps_per_epoch=3, val_cases=0)
    train("Test", workspace=workspace, config=config)
    assert "--max-time" not in caplog.text
    monkeypatch.setattr(budget, "CPU_SPEED", dict.fromkeys(budget.CPU_SPEED, budget.Speed(gflops=1e-6, elements=1e-3)))
    train("Test", workspace=workspace, config=config, overwrite=True)
    assert "2 epochs of 3 steps take an estimated" in caplog.text
    caplog.clear()
    train("Test", workspace=workspace, config=config, resume=True)  # `run` begins and resumes like this
    assert "take an estimated" not in caplog.text
    train("Test", workspace=workspace, config=config, fold="all", resume=True)
    assert "take an estimated" in caplog.text
    assert "days on a CPU" in caplog.text
    assert "--max-time" in caplog.text


def test_the_plan_is_made_for_the_network_that_is_trained(workspace, monkeypatch, tmp_path, caplog):
    """A model for a GPU: its network is kept, and the steps that are stated are those of this network."""
    threads(monkeypatch, 4)
    caplog.set_level("INFO")
    wide = WIDE.revised(features=(24, 48))
    model = make_test_plan(network=wide)
    ModelBundle.save(tmp_path / "model", TrainedMember(plan=model, networks=[build_network(wide, seed=1)]))
    prepared = make_test_plan(network=WIDE, batch_size=8)
    prepared.save(workspace.prepared_folder("Test", 3) / "plan.json")
    config = TIMED.revised(max_time_s=60.0, pretrained=str(tmp_path / "model"))
    clock = SimulatedClock()
    result = train("Test", workspace=workspace, config=config, progress=OneSecondSteps(clock), clock=clock)
    plan = RunRecord.load(result.folder / "run.json").plan
    assert (plan.network, plan.batch_size) == (wide, 2)
    assert plan.mirror_axes is None, "few cases that are seen often"
    n_steps = training_steps(plan, compute_budget(config, wide))
    assert f"{n_steps} steps in 1 min instead of" in caplog.text
    narrow = training_plan(prepared, config.revised(pretrained=None), adapt=True)
    assert n_steps < training_steps(narrow, compute_budget(config, narrow.network)) / 2
    assert "pretrained: 16 of 16 tensors (100% of the weights)" in caplog.text


def test_a_patch_that_the_pretrained_network_cannot_have_is_rejected(workspace, tmp_path):
    deep = WIDE.revised(
        features=(4, 8, 8), strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)), kernels=((3, 3, 3),) * 3,
        encoder_convs=(1, 1, 1), decoder_convs=(1, 1),
    )  # fmt: skip
    model = make_test_plan(network=deep)
    ModelBundle.save(tmp_path / "model", TrainedMember(plan=model, networks=[build_network(deep, seed=1)]))
    config = tiny_config(pretrained=str(tmp_path / "model"))
    prepared = make_test_plan(network=WIDE, patch_size=(14, 14, 14))
    for adapt in (True, False):
        assert training_plan(prepared, config, adapt=adapt).patch_size == (16, 16, 16)
        assert training_plan(prepared, config, adapt=adapt, overrides=("patch_size=12,8,8",)).patch_size == (
            *(12, 8, 8),
        )
        with pytest.raises(OptionError, match="must be a positive multiple of"):
            training_plan(prepared, config, adapt=adapt, overrides=("patch_size=10,16,16",))


def test_what_the_user_sets_anew_is_not_passed_over(workspace, monkeypatch):
    config = tiny_config(epochs=1, val_cases=0)
    start(workspace, monkeypatch, config, overrides=("network.features=4,8",))
    with pytest.raises(OutputError, match="another plan"):
        train("Test", workspace=workspace, config=config, overrides=("network.features=6,8",), resume=True)
    folder = workspace.prepared_folder("Test", 3)
    kept = (folder / "plan.json").read_text()
    make_test_plan(network=WIDE, batch_size=3).save(folder / "plan.json")  # preprocessed anew with --set batch_size=3
    with pytest.raises(OutputError, match="another plan"):
        train("Test", workspace=workspace, config=config, overrides=("network.features=4,8",), resume=True)
    (folder / "plan.json").write_text(kept)
    train("Test", workspace=workspace, config=config, overrides=("network.features=4,8",), resume=True)


def test_a_run_recorded_before_plans_were_kept_goes_on(workspace, monkeypatch):
    config = tiny_config(epochs=1, val_cases=0)
    folder = start(workspace, monkeypatch, config)
    RunRecord.load(folder / "run.json").revised(plan=None, store_plan_digest=None).save(folder / "run.json")
    assert train("Test", workspace=workspace, config=config, resume=True).steps == 4


def test_the_batch_that_was_asked_for_is_the_plans(workspace, monkeypatch):
    threads(monkeypatch, 1)
    config = tiny_config(epochs=1, val_cases=0, batch_size=3)
    result = train("Test", workspace=workspace, config=config)
    plan = ModelBundle.load(result.folder).record.plan
    assert plan.batch_size == RunRecord.load(result.folder / "run.json").plan.batch_size == 3
    assert plan.reasons["batch_size"] == "set by --batch-size 3"


def test_the_estimate_of_time_knows_the_batch(workspace, monkeypatch):
    threads(monkeypatch, 32)
    store = PreparedStore.open(workspace.prepared_folder("Test", 3))
    for config, overrides in (TIMED.revised(batch_size=64), ()), (TIMED, ("batch_size=64",)):
        plan = training_plan(store.plan, config, adapt=True, overrides=overrides)
        assert plan.batch_size == 64, "by hand: not made smaller"
        assert plan.network.features == (8, 16), "so the network is"
        assert "batch_size" in plan.reasons
    with pytest.raises(OptionError, match="contradict"):
        training_plan(store.plan, TIMED.revised(batch_size=2), adapt=True, overrides=("batch_size=3",))


def test_run_refuses_two_batch_sizes_before_it_does_anything(workspace):
    options = PlanOptions(overrides=("batch-size = 3",))
    with pytest.raises(OptionError, match="contradict"):
        run("nowhere", workspace=workspace, plan_options=options, config=TIMED.revised(batch_size=2))


def test_the_plan_says_how_a_chosen_augmentation_mirrors(workspace):
    """Also in a short training by the recipe, whose augmentation would mirror."""
    store = PreparedStore.open(workspace.prepared_folder("Test", 3))
    recipe = train_config(preset="recipe", max_time="2m")
    assert recipe.max_time_s == 120
    assert recipe.epochs is None
    short = training_plan(store.plan, recipe, n_cases=1000, adapt=True)
    assert short.mirror_axes == ()
    assert task_of(short, recipe).augmentation.mirror_axes(3) == ()
    assert task_of(short, recipe).augmentation["blur"] == recipe.augmentation["blur"]
    assert training_plan(store.plan, recipe, adapt=True, overrides=("mirror_axes=1,2",)).mirror_axes == (1, 2)
    assert training_plan(store.plan, train_config(augment=False), adapt=False).mirror_axes == ()
    assert training_plan(store.plan, train_config(), adapt=False).mirror_axes is None


def test_processes_on_one_machine_share_its_processors(workspace, monkeypatch):
    threads(monkeypatch, 32)
    plan = PreparedStore.open(workspace.prepared_folder("Test", 3)).plan
    alone, many = (
        training_plan(plan, TIMED.revised(devices=n), n_cases=1000, adapt=True).network.features for n in (1, 32)
    )
    assert alone == (8, 24)
    assert many == (8, 16)


def test_volumes_that_do_not_divide_the_batch_are_refused_before_the_folder_is_claimed(workspace):
    with pytest.raises(OptionError, match="nvol is for 2D"):
        train("Test", workspace=workspace, config=tiny_config(nvol=2))
    assert not workspace.run_folder("Test", 3, 0).exists()


def task_of(plan, config):
    return TrainTask(
        store=Path(),
        folder=Path(),
        plan=plan,
        config=config,
        hardware=choose_hardware(config),
        train_ids=(),
        val_ids=(),
        started=0.0,
        log_level=0,
    )
