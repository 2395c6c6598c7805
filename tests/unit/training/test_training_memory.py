"""The memory that a training is expected to need, of CPUs and GPUs, with that of its validations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

from decathlete.core import machine
from decathlete.planning.memory import training_bytes
from decathlete.training.distributed.devices import Hardware
from decathlete.training.loop.task import TrainTask
from decathlete.training.requirements import warn_of_memory
from training_support import make_store, tiny_config

MakeTask = Callable[..., TrainTask]


@pytest.fixture
def make_task(tmp_path: Path) -> MakeTask:
    store = make_store(tmp_path / "store")

    def make(*, val_ids: tuple[str, ...] = (), **hardware: object) -> TrainTask:
        return TrainTask(
            store=store.folder,
            folder=tmp_path / "run",
            plan=store.plan,
            config=tiny_config(),
            hardware=replace(Hardware(kind="cpu", index=None, precision="fp32", devices=1, nodes=1), **hardware),
            train_ids=store.case_ids[:4],
            val_ids=val_ids,
            started=0.0,
            log_level=logging.INFO,
        )

    return make


def network_bytes(task: TrainTask) -> int:
    return training_bytes(task.plan.network, task.plan.patch_size, task.plan.batch_size)


def is_warned(task: TrainTask, caplog: pytest.LogCaptureFixture) -> bool:
    caplog.clear()
    warn_of_memory(task)
    return "may run out" in caplog.text


def test_every_process_of_a_computer_needs_its_own_memory(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    needed = network_bytes(make_task())
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 2 * needed)
    assert not is_warned(make_task(), caplog)
    assert is_warned(make_task(devices=3), caplog)
    assert "the memory of this computer may run out: network, batch and validation need about" in caplog.text


def test_the_sums_of_a_validation_count(
    make_task: MakeTask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alone, validated = make_task(), make_task(val_ids=("case4", "case5"))
    plan = alone.plan
    sums = 4 * plan.labels.n_outputs * min(plan.patch_size[0], 20) * prod((20, 20))
    free = (network_bytes(alone) + sums // 2) / 0.8
    monkeypatch.setattr(machine, "free_device_memory_bytes", lambda _: free)
    monkeypatch.setattr("decathlete.training.requirements.MEMORY_SHARE", 0.8)
    assert not is_warned(make_task(kind="cuda", index=0), caplog)
    assert is_warned(make_task(kind="cuda", index=0, val_ids=validated.val_ids), caplog)
    assert "the memory of cuda may run out" in caplog.text
