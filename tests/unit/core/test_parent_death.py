"""Worker processes end with their parent, also if it is killed."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decathlete.core.parallel import end_with_parent
from guards import HANG_S

SPAWN = multiprocessing.get_context("spawn")


def wait_for_ever(path: Path) -> None:
    """Say that the worker runs, by a FIFO whose writing end closes with the process, and wait."""
    os.open(path, os.O_WRONLY)
    signal.pause()


def fit(task: Any, progress: Any, environment: Any) -> None:
    """A training process that is busy."""
    wait_for_ever(task.folder)


def use_training(path: Path) -> None:
    """A parent that trains with two processes."""
    # Imported here, since it is slow and every process of these tests imports this module.
    from decathlete.training.distributed.spawn import spawn

    hardware = SimpleNamespace(devices=2, kind="cpu")
    spawn(fit, SimpleNamespace(folder=path, hardware=hardware, log_level=30), SimpleNamespace())  # type: ignore[arg-type]


def use_process(path: Path) -> None:
    """A parent of a process that ends with it."""
    process = SPAWN.Process(target=wait_with_parent, args=(path,))
    process.start()
    process.join()


def wait_with_parent(path: Path) -> None:
    end_with_parent()
    wait_for_ever(path)


def start(parent: Any, path: Path, there: Connection) -> None:
    there.send("started")
    parent(path)


@pytest.mark.parametrize(
    ("parent", "number"),
    [
        (use_process, signal.SIGKILL),
        (use_process, signal.SIGABRT),
        pytest.param(use_training, signal.SIGKILL, marks=pytest.mark.full),
        pytest.param(use_training, signal.SIGABRT, marks=pytest.mark.full),
    ],
)
def test_workers_end_with_a_parent_that_is_killed(parent: Any, number: int, tmp_path: Path) -> None:
    path = tmp_path / "workers"
    os.mkfifo(path)
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=start, args=(parent, path, there))
    process.start()
    assert here.poll(HANG_S)
    reader = os.open(path, os.O_RDONLY)  # returns when a worker has opened the other end
    os.kill(process.pid or 0, number)
    process.join(HANG_S)
    assert process.exitcode == -number
    assert select.select([reader], [], [], HANG_S)[0], "workers live on"
    assert os.read(reader, 1) == b"", "the end of the file: no worker has it open any more"
    os.close(reader)


def test_a_process_without_such_a_parent_runs_on() -> None:
    end_with_parent()
