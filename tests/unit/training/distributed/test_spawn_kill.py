"""A training process that is killed is named, with the signal."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.multiprocessing.spawn import ProcessExitedException

from decathlete.errors import DecathleteError, InterruptedRunError
from decathlete.training.distributed.spawn import spawn


def die(task: Any, progress: Any, environment: Any) -> None:
    """The second process is killed; the first waits."""
    if environment.global_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


class ProcessesOfWhichOneIsKilled:
    """What torch returns when it has started the processes."""

    def __init__(self, number: int = signal.SIGKILL) -> None:
        self.number = number

    def pids(self) -> list[int]:
        return []

    def join(self) -> bool:
        raise ProcessExitedException("...", error_index=1, error_pid=7, exit_code=-self.number, signal_name="")


def test_the_message_names_process_signal_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "decathlete.training.distributed.spawn.start_processes", lambda *_, **__: ProcessesOfWhichOneIsKilled()
    )
    monkeypatch.setattr("decathlete.training.distributed.spawn.forward", lambda _: None)
    monkeypatch.setattr("decathlete.training.distributed.spawn.count_oom_kills", lambda: 3)
    monkeypatch.setattr("decathlete.core.process_end.count_oom_kills", lambda: 4)
    hardware = SimpleNamespace(devices=2, kind="cpu")
    task = SimpleNamespace(folder=tmp_path, hardware=hardware, log_level=30)
    with pytest.raises(DecathleteError) as raised:
        spawn(die, task, SimpleNamespace())  # type: ignore[arg-type]
    assert raised.value.problem == (
        "training process 1 of 2 was ended by SIGKILL (memory ran out, and the system ended it)"
    )
    assert (raised.value.code, raised.value.where) == ("E-TRAINING-PROCESS", tmp_path)


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_processes_that_a_signal_ends_while_they_start_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended_by: int
) -> None:
    monkeypatch.setattr(
        "decathlete.training.distributed.spawn.start_processes", lambda *_, **__: ProcessesOfWhichOneIsKilled(ended_by)
    )
    monkeypatch.setattr("decathlete.training.distributed.spawn.forward", lambda send: send(signal.SIGINT))
    task = SimpleNamespace(folder=tmp_path, hardware=SimpleNamespace(devices=2, kind="cpu"), log_level=30)
    with pytest.raises(DecathleteError) as raised:
        spawn(die, task, SimpleNamespace())  # type: ignore[arg-type]
    assert isinstance(raised.value, InterruptedRunError) is (ended_by == signal.SIGINT)
    assert ("was ended by SIGKILL" in str(raised.value)) is (ended_by == signal.SIGKILL)


@pytest.mark.full
def test_a_killed_training_process_is_named_with_its_signal(tmp_path: Path) -> None:
    hardware = SimpleNamespace(devices=2, kind="cpu")
    task = SimpleNamespace(folder=tmp_path, hardware=hardware, log_level=30)
    with pytest.raises(DecathleteError, match=r"training process 1 of 2 was ended by SIGKILL \(") as raised:
        spawn(die, task, SimpleNamespace())  # type: ignore[arg-type]
    assert (raised.value.code, raised.value.where) == ("E-TRAINING-PROCESS", tmp_path)
