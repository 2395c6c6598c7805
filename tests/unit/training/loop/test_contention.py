"""Threads of a training beside other programs, on a simulated machine."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from decathlete.core.machine import thread_wait_s
from decathlete.training.loop.contention import AdaptThreads, ThreadChoice


class Machine:
    """A training's steps on a machine with processors that other programs may use; everything takes simulated time."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, processors: int = 4, timed: bool = True, max_time_s: float = 1e6
    ) -> None:
        monkeypatch.setattr(torch, "get_num_threads", lambda: processors)
        self.processors, self.busy = processors, 0
        self.now_s = self.waited_s = 0.0
        self.threads, self.calls = processors, list[int]()
        self.callback = AdaptThreads(lambda: self.waited_s, self.set_threads)
        config = SimpleNamespace(timed=timed)
        budget = SimpleNamespace(deadline=lambda _state: max_time_s)
        clock = SimpleNamespace(elapsed=lambda: self.now_s)
        state = SimpleNamespace(step_s=0.0)
        task = SimpleNamespace(config=config)
        self.module: Any = SimpleNamespace(
            task=task, clock=clock, budget=budget, state=state, finishing=None, has_usual_steps=True
        )
        device = SimpleNamespace(type="cpu")
        self.trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=device), world_size=1)

    def set_threads(self, threads: int) -> None:
        self.threads = threads
        self.calls.append(threads)

    def step_s(self) -> float:
        """Free processors share the work; one thread too many makes all wait."""
        free = self.processors - self.busy
        return 0.4 / self.threads if self.threads <= free else 1.0

    def train(self, seconds: float, *, epoch_s: float = 5.0, validation_s: float = 3.0) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.callback.on_train_epoch_start(self.trainer, self.module)
            epoch_end_s = self.now_s + epoch_s
            while self.now_s < epoch_end_s:
                step_s = self.step_s()
                self.now_s += step_s
                too_many = max(0, self.threads + self.busy - self.processors)
                self.waited_s += step_s * too_many
                self.callback.on_train_batch_end(self.trainer, self.module, None, None, 0)
            self.callback.on_train_epoch_end(self.trainer, self.module)
            self.now_s += validation_s
            self.waited_s += 10 * validation_s  # of other work than steps


def test_a_quiet_machine_keeps_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.train(600)
    assert machine.calls == []


def test_busy_processors_are_left_to_others(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(monkeypatch)
    machine.busy = 1
    with caplog.at_level(logging.INFO, logger="decathlete"):
        machine.train(60)
    assert machine.threads == 3
    assert caplog.messages[0].startswith("training with 3 of 4 threads: a step takes 0.13 s instead of 1 s")
    assert "other programs" in caplog.messages[0]


def test_free_processors_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.busy = 2
    machine.train(60)
    assert machine.threads == 2
    machine.busy = 0
    machine.train(400)
    assert machine.threads == 4


def test_fewer_threads_are_tried_again_when_more_processors_become_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, processors=16)
    machine.busy = 4
    machine.train(60)
    assert machine.threads == 12
    machine.busy = 12
    machine.train(600)
    assert machine.threads <= 4


def test_no_trial_begins_near_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, max_time_s=50)
    machine.busy = 1
    machine.train(50)
    assert machine.calls == []


def test_a_trial_ends_when_the_training_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.busy = 1
    while machine.module.has_usual_steps:
        machine.train(1)
    assert machine.threads == 4, "between epochs there is no trial"
    machine.callback.on_train_epoch_start(machine.trainer, machine.module)
    assert machine.threads == 3
    machine.callback.on_train_epoch_end(machine.trainer, machine.module)
    machine.module.finishing = object()
    machine.callback.on_train_epoch_start(machine.trainer, machine.module)
    assert (machine.threads, machine.module.has_usual_steps) == (4, True), "before the first of the last steps"


def test_steps_of_a_trial_do_not_count_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their durations would move the schedule, and could end a training early."""
    machine = Machine(monkeypatch)
    machine.busy = 1
    machine.train(60)
    assert machine.threads == 3
    assert machine.module.has_usual_steps
    assert machine.module.state.step_s == pytest.approx(0.4 / 3)


def test_trials_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.busy = 1
    slow_s = 0.0
    before = machine.now_s
    while machine.now_s - before < 3600:
        machine.train(5)
        slow_s += 5 if machine.threads != 3 else 0
    assert slow_s < 0.05 * 3600


def test_fewer_threads_that_are_slower_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting alone decides nothing: the readers of this process wait, too."""
    machine = Machine(monkeypatch)
    monkeypatch.setattr(machine, "step_s", lambda: 0.4 / machine.threads)
    machine.busy = 2
    machine.train(60)
    assert machine.calls
    assert machine.threads == 4


@pytest.mark.parametrize("failed", [False, True])
def test_the_number_of_threads_is_restored(monkeypatch: pytest.MonkeyPatch, failed: bool) -> None:
    machine = Machine(monkeypatch)
    machine.busy = 1
    machine.train(60)
    assert machine.threads == 3
    if failed:
        machine.callback.on_exception(machine.trainer, machine.module, OSError())
    else:
        machine.callback.teardown(machine.trainer, machine.module, "fit")
    assert machine.threads == 4


def test_a_training_by_epochs_repeats_with_the_same_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, timed=False)
    machine.busy = 3
    machine.train(600)
    assert machine.calls == []


def test_at_least_one_thread_is_left() -> None:
    choice = ThreadChoice(2)
    choice.record_window(10, step_s=1, waiting=1.5)
    assert choice.threads == 1


def test_waiting_is_summed_over_threads(tmp_path: Path) -> None:
    for thread, text in {"1": "5000000000 2000000000 7", "2": "1 500000000 3", "3": "no figures"}.items():
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(text)
    assert thread_wait_s(tmp_path) == 2.5
    assert thread_wait_s(tmp_path / "missing") is None
