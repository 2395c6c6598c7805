"""Training, from the prepared store to the bundle: it learns, repeats, resumes, stops on request, keeps its time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from decathlete.errors import DecathleteError, InterruptedRunError, OptionError, OutputError, PlanError, StoreError
from decathlete.models.bundle import ModelBundle
from decathlete.preprocessing.store import PreparedStore
from decathlete.training import run
from decathlete.training.loop.checkpoint import load_checkpoint
from decathlete.training.loop.module import SegmentationModule
from decathlete.training.objective import optimizer_steps
from decathlete.training.objective.deep_supervision import DeepSupervision
from decathlete.training.reporting.records import EpochRecord, Logs, RunRecord
from decathlete.training.run import train
from factories import make_test_network, make_test_plan
from guards import HANG_S
from training_support import NO_AUGMENTATION, REGIONS, KillAt, SimulatedClock, make_store, tiny_config


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> PreparedStore:
    return make_store(tmp_path_factory.mktemp("store"))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return ModelBundle.load(run).build().state_dict()


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], **tolerances: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **(tolerances or {"rtol": 0, "atol": 0}))


class RecordedProgress:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, float]] = []
        self.epochs: list[EpochRecord] = []

    def on_step(self, step: int, progress: float) -> None:
        self.steps.append((step, progress))

    def on_epoch(self, record: EpochRecord) -> None:
        self.epochs.append(record)


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    """A run of two epochs, with what its progress heard."""
    heard = RecordedProgress()
    result = train(store, 0, tmp_path_factory.mktemp("results") / "run", tiny_config(), progress=heard)
    return result, heard


def test_it_leaves_bundles_logs_and_a_record(trained, store):
    result, heard = trained
    final, best = ModelBundle.load(result.folder), ModelBundle.load(result.model_best)
    assert (final.record.weights, best.record.weights) == ("final", "best")
    assert final.record.mirror_axes == (0, 1, 2)
    assert final.record.plan == store.plan
    provenance = final.record.training_provenance
    assert (provenance["fold"], provenance["training_cases"], provenance["steps"]) == (0, 4, 8)
    assert "case0" not in json.dumps(provenance)
    logs = Logs.load(result.folder / "logs.json")
    assert logs.classes == ("c1", "c2")
    assert [e.step for e in logs.epochs] == [4, 8]
    assert list(logs.epochs) == heard.epochs
    assert set(logs.epochs[0].dice) == {"c1", "c2"}
    assert all(e.val_loss is not None and e.patches_per_second > 0 for e in logs.epochs)
    assert (result.folder / "logs.csv").read_text().count("\n") == 3
    record = RunRecord.load(result.folder / "run.json")
    assert record.finished is not None
    assert record.val == ("case4", "case5")
    assert [s for s, _ in heard.steps] == list(range(1, 9))
    assert heard.steps[-1][1] == 1.0
    assert not list(result.folder.rglob(".partial*"))


def test_the_result_is_the_averaged_weights(trained):
    result, _ = trained
    last = load_checkpoint(result.folder / "checkpoints" / "last.ckpt")
    assert_same(weights(result.folder), last["ema"])


def test_two_runs_give_the_same_weights_and_another_seed_others(trained, store, tmp_path):
    result, _ = trained
    train(store, 0, tmp_path / "again", tiny_config())
    assert_same(weights(result.folder), weights(tmp_path / "again"))
    train(store, 0, tmp_path / "other", tiny_config(seed=2, val_cases=0))
    first = next(iter(weights(result.folder)))
    assert not torch.equal(weights(result.folder)[first], weights(tmp_path / "other")[first])


def in_process(store: PreparedStore, run: Path, config, *, kill_step: int, number: int) -> subprocess.Popen[str]:
    script = Path(__file__).parents[1] / "training_support.py"
    arguments = [str(store.folder), str(run), config.model_dump_json(), str(kill_step), str(number)]
    return subprocess.Popen([sys.executable, str(script), *arguments], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kill_step", [2, 6])
def test_killed_and_resumed_equals_never_killed(trained, store, tmp_path, kill_step):
    result, _ = trained
    process = in_process(store, tmp_path / "run", tiny_config(), kill_step=kill_step, number=signal.SIGKILL)
    process.communicate(timeout=HANG_S)
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() == (kill_step > 4)
    resumed = train(store, 0, tmp_path / "run", tiny_config(), resume=True)
    assert_same(weights(result.folder), weights(tmp_path / "run"))
    assert (resumed.epochs, resumed.steps) == (2, 8)
    assert resumed.mean_dice == result.mean_dice
    assert [e.step for e in Logs.load(tmp_path / "run" / "logs.json").epochs] == [4, 8]


def test_sigterm_saves_first_and_says_so(trained, store, tmp_path):
    result, _ = trained
    process = in_process(store, tmp_path / "run", tiny_config(), kill_step=6, number=signal.SIGTERM)
    _, said = process.communicate(timeout=HANG_S)
    assert process.returncode == 143, said
    assert "--resume" in said
    assert "training step(s) are too few for one" in said
    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state"]
    assert state["epoch"] == 1
    assert state["step"] in (6, 7)
    assert not (tmp_path / "run" / "model").exists()
    train(store, 0, tmp_path / "run", tiny_config(), resume=True)
    assert_same(weights(result.folder), weights(tmp_path / "run"))


class StopAfter(RecordedProgress):
    """Asks this process to stop, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_step(self, step: int, progress: float) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def test_stopped_between_the_last_step_and_validation_the_epoch_is_closed_on_resuming(trained, store, tmp_path):
    result, _ = trained
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedRunError) as caught:
        train(store, 0, tmp_path / "run", tiny_config(), progress=StopAfter(4))
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) is before
    train(store, 0, tmp_path / "run", tiny_config(), resume=True)
    assert_same(weights(result.folder), weights(tmp_path / "run"))


def test_a_finished_run_is_returned_and_never_lost_by_mistake(trained, store):
    result, _ = trained
    stamp = (result.model / "weights" / "3d_fold_0.safetensors").stat().st_mtime_ns
    again = train(store, 0, result.folder, tiny_config(), resume=True)
    assert (again.steps, again.model, again.best_dice) == (result.steps, result.model, result.best_dice)
    with pytest.raises(OutputError, match="this run, finished"):
        train(store, 0, result.folder, tiny_config())
    with pytest.raises(OutputError, match="epochs: 2 -> 3"):
        train(store, 0, result.folder, tiny_config(epochs=3), resume=True)
    assert (result.model / "weights" / "3d_fold_0.safetensors").stat().st_mtime_ns == stamp


def test_a_finished_run_without_its_checkpoints_is_returned_too(trained, store, tmp_path):
    result, _ = trained
    shutil.copytree(result.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    again = train(store, 0, tmp_path / "run", tiny_config(), resume=True)
    assert replace(again, seconds=result.seconds) == replace(
        result, folder=tmp_path / "run", model=tmp_path / "run" / "model", model_best=tmp_path / "run" / "model_best"
    )
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_plan_that_keeps_the_largest_component_gives_the_model_this_step(store, tmp_path):
    train(store, "all", tmp_path / "kept", tiny_config(epochs=1), plan=store.plan.revised(keep_largest=True))
    kept = ModelBundle.load(tmp_path / "kept")
    assert [(step.name, step.settings) for step in kept.record.postprocessing] == [
        ("keep_largest_component", {"together": True})
    ]
    assert "keep_largest_component" in (kept.folder / "MODEL_CARD.md").read_text()


def test_overwrite_begins_anew_and_spares_other_files(store, tmp_path):
    folder = tmp_path / "run"
    train(store, 0, folder, tiny_config(epochs=1, val_cases=0))
    (folder / "notes.txt").write_text("mine")
    result = train(store, 0, folder, tiny_config(epochs=1, steps_per_epoch=2, val_cases=0), overwrite=True)
    assert result.steps == 2
    assert result.model_best is None
    assert (folder / "notes.txt").read_text() == "mine"


def test_files_of_unknown_origin_are_not_replaced(store, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(OutputError, match="their origin is unknown"):
        train(store, 0, tmp_path, tiny_config())
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_it_learns(store, tmp_path):
    config = tiny_config(epochs=3, steps_per_epoch=30, augmentation=NO_AUGMENTATION)
    result = train(store, 0, tmp_path / "run", config)
    losses = [e.train_loss for e in Logs.load(tmp_path / "run" / "logs.json").epochs]
    assert losses[-1] < 0.6 * losses[0]
    assert result.mean_dice > 0.6
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert any(not torch.equal(last["ema"][k], last["network"][k]) for k in last["ema"])


@pytest.mark.parametrize(
    ("dims", "changes"),
    [(2, {}), (3, {"optimizer": "sgd", "schedule": "poly", "batch_dice": False}), (3, {"ema_decay": 0.0})],
)
def test_other_ways_of_training(tmp_path, dims, changes):
    store = make_store(tmp_path / "store", dims)
    result = train(store, 0, tmp_path / "run", tiny_config(epochs=1, **changes))
    assert result.mean_dice is not None
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    if "ema_decay" in changes:
        assert_same(last["ema"], last["network"])


def test_regions_and_deep_supervision(tmp_path):
    network = make_test_network(3, out_channels=2).revised(
        features=(4, 8, 8),
        kernels=((3,) * 3,) * 3,
        strides=((1,) * 3, (2,) * 3, (2,) * 3),
        encoder_convs=(1,) * 3,
        decoder_convs=(1, 1),
        heads=2,
    )
    store = make_store(tmp_path / "store", plan=make_test_plan(3, labels=REGIONS, network=network))
    train(store, 0, tmp_path / "run", tiny_config(epochs=1))
    assert set(Logs.load(tmp_path / "run" / "logs.json").epochs[0].dice) == {"whole", "core"}


def test_fold_all_holds_nothing_out(store, tmp_path):
    result = train(store, "all", tmp_path / "run", tiny_config(epochs=1))
    assert RunRecord.load(tmp_path / "run" / "run.json").train == store.case_ids
    assert (result.mean_dice, result.model_best) == (None, None)
    with pytest.raises(OptionError, match="fold 1 does not exist"):
        train(store, 1, tmp_path / "other", tiny_config())


def test_a_plan_of_other_preparation_is_refused(store, tmp_path):
    other = store.plan.revised(target_spacing=(2.0, 1.0, 1.0))
    with pytest.raises(PlanError, match="target_spacing"):
        train(store, 0, tmp_path / "run", tiny_config(), plan=other)
    assert not (tmp_path / "run").exists()


STEP_S, CASE_S = 0.5, 0.2


class TimedSteps(RecordedProgress):
    """Lets each training step take ``STEP_S`` on a simulated clock; may ask this process to stop after a step."""

    def __init__(self, clock: SimulatedClock, *, stop_after: int | None = None) -> None:
        super().__init__()
        self.clock = clock
        self.stop_after = stop_after

    def on_step(self, step: int, progress: float) -> None:
        super().on_step(step, progress)
        self.clock.now_s += STEP_S
        if step == self.stop_after:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def clock(monkeypatch) -> SimulatedClock:
    """A clock that the validation of a case moves by ``CASE_S``."""
    from decathlete.training.loop.validation import Validator

    clock, case = SimulatedClock(), Validator.case

    def timed(self, network, case_id, **options):
        clock.now_s += CASE_S
        return case(self, network, case_id, **options)

    monkeypatch.setattr(Validator, "case", timed)
    return clock


def test_a_time_budget_is_used_and_not_exceeded(store, tmp_path, clock):
    heard, began_s = TimedSteps(clock), clock.now_s
    config = tiny_config(epochs=None, max_time_s=60.0)
    result = train(store, 0, tmp_path / "run", config, progress=heard, clock=clock)
    assert 0.75 * 60 <= clock.now_s - began_s <= 60
    assert result.seconds <= 60
    assert result.epochs > 4
    assert heard.steps[-1][1] > 0.9
    assert heard.epochs[-1].learning_rate < 0.05 * 0.01
    assert any(e.mean_dice is not None for e in heard.epochs)
    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state"]
    assert 2 * CASE_S <= state["val_spent_s"] <= 0.1 * 60.0


def test_a_case_that_would_take_too_long_is_not_validated(store, tmp_path, clock, caplog, monkeypatch):
    from decathlete.training.loop.validation import Validator

    monkeypatch.setattr(Validator, "expected_seconds", lambda self, case_id, *, step_s: 100.0)
    heard = TimedSteps(clock)
    config = tiny_config(epochs=None, max_time_s=20.0)
    result = train(store, 0, tmp_path / "run", config, progress=heard, clock=clock)
    assert result.mean_dice is None
    assert len(heard.epochs) > 4
    assert all(epoch.mean_dice is None for epoch in heard.epochs)
    assert [record.message for record in caplog.records if "no validation" in record.message] == [
        "no validation in this epoch: one held-out case would take about 100 s"
    ]


def test_time_for_hardly_a_step_is_warned_of(store, tmp_path, caplog):
    readings = count()  # each of them is a second later
    config = tiny_config(epochs=None, max_time_s=0.01, val_cases=0)
    result = train(store, 0, tmp_path / "run", config, clock=lambda: float(next(readings)))
    assert result.steps == 1
    assert "ended after 1 step" in caplog.text


def test_time_spent_before_an_interruption_counts(store, tmp_path, clock):
    config = tiny_config(epochs=None, max_time_s=60.0)
    with pytest.raises(InterruptedRunError):
        train(store, 0, tmp_path / "run", config, progress=TimedSteps(clock, stop_after=40), clock=clock)
    carried_s = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["state"]["elapsed_s"]
    assert carried_s >= 39 * STEP_S
    clock.now_s = began_s = 5000.0  # the machine was restarted, and hours have passed
    result = train(store, 0, tmp_path / "run", config, resume=True, progress=TimedSteps(clock), clock=clock)
    assert 0.75 * 60 <= carried_s + clock.now_s - began_s <= 60
    assert result.seconds <= 60


def test_patience_ends_training_early(store, tmp_path, monkeypatch):
    from decathlete.training.loop.validation import Validation, Validator

    def ever_worse(self, network, case_ids, *, stop):
        ever_worse.dice *= 0.9
        return Validation(dice={"c1": ever_worse.dice, "c2": None}, mean_dice=ever_worse.dice, loss=1.0)

    ever_worse.dice = 0.9
    monkeypatch.setattr(Validator, "run", ever_worse)
    result = train(store, 0, tmp_path / "run", tiny_config(epochs=9, steps_per_epoch=1, patience=3))
    assert (result.epochs, result.best_epoch) == (4, 0)


def test_a_plateau_lowers_the_rate_also_across_a_resumption(store, tmp_path, monkeypatch):
    from decathlete.training.loop.validation import Validation, Validator

    flat = Validation(dice={"c1": 0.5, "c2": None}, mean_dice=0.5, loss=1.0)
    monkeypatch.setattr(Validator, "run", lambda self, network, case_ids, *, stop: flat)
    config = tiny_config(epochs=7, steps_per_epoch=2, schedule="plateau", lr_patience=1, factor=0.5, warmup=0)
    whole = train(store, 0, tmp_path / "whole", config)
    rates = [e.learning_rate for e in Logs.load(whole.folder / "logs.json").epochs]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.005, 0.0025, 0.0025])
    with pytest.raises(InterruptedRunError):
        train(store, 0, tmp_path / "run", config, progress=StopAfter(9))
    train(store, 0, tmp_path / "run", config, resume=True)
    assert [e.learning_rate for e in Logs.load(tmp_path / "run" / "logs.json").epochs] == rates
    assert_same(weights(whole.folder), weights(tmp_path / "run"))


def test_a_plateau_needs_held_out_cases(store, tmp_path):
    with pytest.raises(OptionError, match="plateau waits for validations"):
        train(store, "all", tmp_path / "run", tiny_config(schedule="plateau"))


def test_patience_waits_for_the_fewest_epochs(store, tmp_path, monkeypatch):
    from decathlete.training.loop.validation import Validation, Validator

    dice = iter(range(90, 0, -1))
    monkeypatch.setattr(
        Validator,
        "run",
        lambda self, network, case_ids, *, stop: Validation(dice={}, mean_dice=next(dice) / 100, loss=1.0),
    )
    config = tiny_config(epochs=9, steps_per_epoch=1, patience=1, min_epochs=5)
    assert train(store, 0, tmp_path / "run", config).epochs == 5


def test_the_first_epochs_are_not_validated_but_the_last_is(store, tmp_path):
    config = tiny_config(epochs=4, steps_per_epoch=1, skip_first=2)
    train(store, 0, tmp_path / "run", config)
    validated = [e.val_loss is not None for e in Logs.load(tmp_path / "run" / "logs.json").epochs]
    assert validated == [False, False, True, True]
    train(store, 0, tmp_path / "short", config.revised(epochs=1))
    assert Logs.load(tmp_path / "short" / "logs.json").epochs[0].val_loss is not None


def test_so_many_cases_and_windows_at_a_time_are_validated(store, tmp_path, monkeypatch):
    from decathlete.inference.engines.torch import TorchEngine
    from decathlete.training.loop.validation import Validator

    cases, sizes = [], []
    case, windows = Validator.case, TorchEngine.__call__
    monkeypatch.setattr(
        Validator, "case", lambda self, net, name, **how: (cases.append(name), case(self, net, name, **how))[1]
    )
    monkeypatch.setattr(TorchEngine, "__call__", lambda self, x_BC: (sizes.append(len(x_BC)), windows(self, x_BC))[1])
    train(store, 0, tmp_path / "default", tiny_config(epochs=1, steps_per_epoch=1))
    assert (len(cases), sizes) == (2, [4, 4] * 2), "both held-out cases, each of 8 windows"
    cases.clear(), sizes.clear()
    train(store, 0, tmp_path / "few", tiny_config(epochs=1, steps_per_epoch=1, val_cases=1, val_batch_size=3))
    assert (len(cases), sizes) == (1, [3, 3, 2])


def test_windows_of_validations_are_blended_as_told(store, tmp_path):
    losses = []
    for number, changes in enumerate(({}, {"val_blend": "constant"}, {"val_overlap": 0.9})):
        folder = tmp_path / str(number)
        train(store, 0, folder, tiny_config(epochs=1, steps_per_epoch=1, **changes))
        losses.append(Logs.load(folder / "logs.json").epochs[0].val_loss)
    assert len(set(losses)) == 3


@pytest.mark.parametrize("scaled", ["", "and its loss scaled", "and stepped by a fused optimizer"])
def test_a_clipped_gradient_moves_the_weights_no_further_than_its_norm(store, tmp_path, scaled, monkeypatch):
    from decathlete.networks.build import build_network

    if scaled:
        monkeypatch.setattr(run, "pl", SimpleNamespace(Trainer=partial(scaling_trainer, [])))
        monkeypatch.setattr(optimizer_steps, "FUSED_DEVICES", ("cpu",) if "fused" in scaled else ())

    def moved(clip: float) -> float:
        config = tiny_config(
            optimizer="sgd",
            momentum=0,
            weight_decay=0,
            schedule="none",
            epochs=1,
            steps_per_epoch=1,
            val_cases=0,
            gradient_clip=clip,
        )
        folder = tmp_path / str(clip)
        train(store, 0, folder, config)
        before = build_network(store.plan.network, seed=config.seed).state_dict()
        after = load_checkpoint(folder / "checkpoints" / "last.ckpt")["network"]
        return float(torch.stack([(after[k] - before[k]).square().sum() for k in after]).sum().sqrt())

    # Each of 5,000 weights below 0.25 is rounded by up to 2**-26, together 1e-6: 0.1 % of the way.
    assert moved(0.1) == pytest.approx(0.01 * 0.1, rel=1e-3)
    assert moved(0) > 0.01


@pytest.mark.parametrize("changes", [{"loss": "focal"}, {"oversampling": 1.0}, {"weight_decay": 1.0}])
def test_these_options_change_the_model(trained, store, tmp_path, changes):
    result, _ = trained
    train(store, 0, tmp_path / "run", tiny_config(val_cases=0, **changes))
    ours, others = weights(result.folder), weights(tmp_path / "run")
    assert any(not torch.equal(ours[k], others[k]) for k in ours)


@pytest.mark.full
def test_batch_norms_are_of_all_processes_when_told(tmp_path):
    network = make_test_network(3).revised(norm="batch")
    store = make_store(tmp_path / "store", plan=make_test_plan(3, network=network))
    config = tiny_config(epochs=1, steps_per_epoch=3, optimizer="sgd", gradient_clip=0, val_cases=0, ema_decay=0)
    one = train(store, 0, tmp_path / "one", config.revised(batch_size=2))
    two = train(store, 0, tmp_path / "two", config.revised(batch_size=1, devices=2, sync_batchnorm=True))
    assert_same(weights(one.folder), weights(two.folder), rtol=0, atol=1e-4)


def test_sync_batchnorm_without_batch_norms_is_refused(store, tmp_path):
    with pytest.raises(OptionError, match="needs batch norm, which the network does not have"):
        train(store, 0, tmp_path / "run", tiny_config(sync_batchnorm=True, devices=2))


def test_sync_batchnorm_of_one_device_is_refused(tmp_path):
    network = make_test_network(3).revised(norm="batch")
    store = make_store(tmp_path / "store", plan=make_test_plan(3, network=network))
    with pytest.raises(OptionError, match="for several devices"):
        train(store, 0, tmp_path / "run", tiny_config(sync_batchnorm=True))
    assert not (tmp_path / "run").exists()


def test_a_deterministic_training_leaves_torch_as_it_was(store, tmp_path, monkeypatch):
    inner, seen = SegmentationModule.training_step, []

    def looking(self, batch, batch_idx):
        seen.append(
            (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
        )
        return inner(self, batch, batch_idx)

    monkeypatch.setattr(SegmentationModule, "training_step", looking)
    train(store, 0, tmp_path / "run", tiny_config(deterministic=True, val_cases=0, epochs=1, steps_per_epoch=1))
    assert seen == [(True, True)]
    assert not torch.are_deterministic_algorithms_enabled()


def break_loss(monkeypatch, bad_steps, breaking) -> None:
    """Let ``breaking`` change the loss terms of these steps, counted from now on."""
    inner, steps = DeepSupervision.forward, count()

    def broken(self, outputs, label_B):
        loss = inner(self, outputs, label_B)
        return breaking(loss) if next(steps) in bad_steps else loss

    monkeypatch.setattr(DeepSupervision, "forward", broken)


def nan_at(monkeypatch, bad_steps) -> None:
    break_loss(monkeypatch, bad_steps, lambda total: total * float("nan"))


def test_a_loss_that_is_not_finite_is_skipped_and_counted(store, tmp_path, monkeypatch):
    nan_at(monkeypatch, {1, 5, 6})
    train(store, 0, tmp_path / "run", tiny_config(val_cases=0, optimizer="adamw"))
    epochs = Logs.load(tmp_path / "run" / "logs.json").epochs
    assert [e.skipped_steps for e in epochs] == [1, 2]
    assert all(e.train_loss == e.train_loss for e in epochs)
    assert all(bool(torch.isfinite(w).all()) for w in weights(tmp_path / "run").values())
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["optimizer"]["state"][0]["step"] == 5


def test_a_training_that_diverged_ends_with_advice(store, tmp_path, monkeypatch):
    nan_at(monkeypatch, range(1000))
    with pytest.raises(DecathleteError, match="--learning-rate"):
        train(store, 0, tmp_path / "run", tiny_config(epochs=2, steps_per_epoch=100))


def test_two_processes_that_sigterm_stops_go_on_and_equal_one_with_the_double_batch(store, tmp_path):
    """SGD, so that a tiny difference of gradients stays tiny; augmentation on, one step after the other in float32."""
    config = tiny_config(steps_per_epoch=3, optimizer="sgd", learning_rate=0.01, gradient_clip=0, val_cases=2)
    one = train(store, 0, tmp_path / "one", config.revised(batch_size=2))
    both = config.revised(batch_size=1, devices=2)
    with pytest.raises(InterruptedRunError) as caught:
        train(store, 0, tmp_path / "two", both, progress=KillAt(4, signal.SIGTERM))
    assert caught.value.exit_code == 143
    assert 4 <= load_checkpoint(tmp_path / "two" / "checkpoints" / "last.ckpt")["state"]["step"] < 6
    two = train(store, 0, tmp_path / "two", both, resume=True)
    assert_same(weights(one.folder), weights(two.folder), rtol=0, atol=1e-6)  # a few units in the last place
    assert (two.steps, two.epochs) == (6, 2)
    expected, found = (Logs.load(result.folder / "logs.json").epochs for result in (one, two))
    assert found[0].train_loss == pytest.approx(expected[0].train_loss, abs=1e-5)
    # Logits that differ by 1e-6 change at most one voxel of two cores of 268 voxels and two shells of 1,168: the mean
    # of the two Dice then changes by 1 / (2 * 268) + 1 / (2 * 1168).
    assert [e.mean_dice for e in found] == pytest.approx([e.mean_dice for e in expected], abs=0.0023)


def test_an_error_in_a_spawned_process_is_told_as_usual(store, tmp_path):
    import shutil

    copied = PreparedStore.open(Path(shutil.copytree(store.folder, tmp_path / "store")))
    (copied.folder / "cases" / "case1" / "label.b2nd").unlink()
    with pytest.raises(StoreError, match="case1"):
        train(copied, 0, tmp_path / "run", tiny_config(devices=2))


class ScaledFp32(MixedPrecision):
    """Loss scaling as for fp16, computing in float32: a CPU has no use for fp16, but the scaler's part is the same."""

    def forward_context(self):
        return nullcontext()


def scaling_trainer(scalers, precision, plugins, **options) -> pl.Trainer:
    scalers.append(torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000))
    return pl.Trainer(plugins=[*plugins, ScaledFp32("16-mixed", "cpu", scalers[-1])], **options)


def infinite_gradient_at(monkeypatch, bad_steps) -> None:
    """The loss itself stays finite."""

    def overflown(total):
        total = total.clone()
        total.register_hook(lambda gradient: gradient * float("inf"))
        return total

    break_loss(monkeypatch, bad_steps, overflown)


def test_a_gradient_that_is_not_finite_is_skipped_too(store, tmp_path, monkeypatch):
    infinite_gradient_at(monkeypatch, {2})
    train(store, 0, tmp_path / "run", tiny_config(val_cases=0))
    assert [e.skipped_steps for e in Logs.load(tmp_path / "run" / "logs.json").epochs] == [1, 0]
    assert all(bool(torch.isfinite(w).all()) for w in weights(tmp_path / "run").values())


def test_loss_scaling_skips_overflows_and_is_resumed(store, tmp_path, monkeypatch):
    scalers: list[torch.amp.GradScaler] = []
    monkeypatch.setattr(run, "pl", SimpleNamespace(Trainer=partial(scaling_trainer, scalers)))
    infinite_gradient_at(monkeypatch, {1, 2})
    config = tiny_config(optimizer="sgd", val_cases=0)
    with pytest.raises(InterruptedRunError):
        train(store, 0, tmp_path / "run", config, progress=StopAfter(5))
    train(store, 0, tmp_path / "run", config, resume=True)
    assert [e.skipped_steps for e in Logs.load(tmp_path / "run" / "logs.json").epochs] == [2, 0]
    assert [s.get_scale() for s in scalers] == [256.0, 256.0]
    monkeypatch.undo()
    infinite_gradient_at(monkeypatch, {1, 2})
    train(store, 0, tmp_path / "unscaled", config)
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "unscaled"), rtol=1e-3, atol=1e-5)
