"""Errors that happen in other processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from decathlete.errors import InsufficientMemoryError, OutputError
from decathlete.training.distributed.failures import as_user_error, read_failure, write_failure


@dataclass
class Task:
    folder: Path


def test_an_error_comes_home_as_it_was(tmp_path):
    error = OutputError("is full", where="/disk", remedy="make room", code="E-DISK-FULL")
    write_failure(Task(tmp_path), error)
    found = read_failure(Task(tmp_path))
    assert type(found) is OutputError
    assert str(found) == str(error)
    assert found.code == "E-DISK-FULL"
    assert read_failure(Task(tmp_path)) is None


def test_a_bug_stays_a_traceback(tmp_path):
    write_failure(Task(tmp_path), ZeroDivisionError())
    assert not list(tmp_path.iterdir())


def test_a_full_device_is_a_users_matter_and_a_bug_is_not():
    assert isinstance(as_user_error(torch.OutOfMemoryError("...")), InsufficientMemoryError)
    assert isinstance(
        as_user_error(RuntimeError("DefaultCPUAllocator: can't allocate memory")), InsufficientMemoryError
    )
    assert as_user_error(ZeroDivisionError()) is None
