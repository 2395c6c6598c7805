"""Errors that happen in other processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch

from decathlete.errors import ModelError, OptionError, OutputError
from decathlete.training.failures import FailureReport, as_user_error, read_failure


@dataclass
class Task:
    folder: Path
    hardware: SimpleNamespace


def test_an_error_comes_home_as_it_was(tmp_path):
    task = Task(tmp_path, SimpleNamespace(spawned=True))
    error = OutputError("is full", where="/disk", remedy="make room")
    FailureReport().on_exception(None, SimpleNamespace(task=task), error)
    found = read_failure(task)
    assert type(found) is OutputError
    assert str(found) == str(error)
    assert read_failure(task) is None


def test_in_one_process_nothing_is_written(tmp_path):
    task = Task(tmp_path, SimpleNamespace(spawned=False))
    FailureReport().on_exception(None, SimpleNamespace(task=task), ModelError("x"))
    assert not list(tmp_path.iterdir())


def test_a_full_device_is_a_users_matter_and_a_bug_is_not():
    assert isinstance(as_user_error(torch.OutOfMemoryError("...")), OptionError)
    assert as_user_error(ZeroDivisionError()) is None
