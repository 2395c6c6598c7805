"""A task in a process of its own: results, failures, messages, and its end with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster_support import Item, fail_at_7, kill_worker_at_7, sleep_long, wait_until
from decathlete.cluster.child import call_in_child
from decathlete.cluster.payload import dumps, loads
from decathlete.errors import ClusterError

TESTS = Path(__file__).parents[2]


def call(function: Any, item: Item, *, cancelled: bool = False, lines: list[Any] | None = None) -> Any:
    received: list[Any] = [] if lines is None else lines
    return loads(
        call_in_child(
            dumps(("a case", function, item)), n_threads=1, is_cancelled=lambda: cancelled, on_log=received.append
        )
    )


def test_results_and_messages_come_back(tmp_path: Path) -> None:
    lines: list[Any] = []
    outcome = call(fail_at_7, Item(number=3, folder=tmp_path), lines=lines)
    assert (outcome.case_id, outcome.value, outcome.error) == ("a case", 3, None)
    assert lines == [(30, "decathlete.tests", "case 3 is here")]


def test_an_error_of_the_data_is_the_outcome(tmp_path: Path) -> None:
    outcome = call(fail_at_7, Item(number=7, folder=tmp_path))
    assert outcome.cause.code == "E-IMAGE-DAMAGED"
    assert outcome.error == str(outcome.cause)


def test_a_process_that_dies_is_an_error_that_says_how(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="its process was ended by SIGKILL") as raised:
        call(kill_worker_at_7, Item(number=7, folder=tmp_path))
    assert raised.value.code == "E-CLUSTER-CRASH"


def test_a_cancelled_task_ends(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="was cancelled"):
        call(sleep_long, Item(number=1, folder=tmp_path), cancelled=True)


def test_a_process_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "from cluster_support import *; from pathlib import Path\n"
        "from decathlete.cluster.child import call_in_child; from decathlete.cluster.payload import dumps\n"
        f"item = Item(number=1, folder=Path({str(tmp_path)!r}))\n"
        "call_in_child(dumps(('a', sleep_long, item)), n_threads=1, is_cancelled=lambda: False, on_log=print)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in [str(TESTS), *sys.path] if path)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    trace = tmp_path / "1.tries"
    wait_until(lambda: trace.exists() and bool(trace.read_text()))
    child = int(trace.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
