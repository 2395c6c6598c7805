"""Cases that were in work when the process was killed are named by the next command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from decathlete.dataset import killed_cases
from decathlete.dataset.killed_cases import cases_in_work, marked_in_work

KILLED_AT_WORK = """
import os, signal, sys
from pathlib import Path
from decathlete.dataset.killed_cases import marked_in_work

folder = Path(sys.argv[1])
with marked_in_work(folder, "liver_1"), marked_in_work(folder, "liver_2"):
    with marked_in_work(folder, "done"):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_at_work(folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_AT_WORK, str(folder)], check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == -signal.SIGKILL


def named(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    with cases_in_work(folder, verb="prepared", remedy="use fewer --workers"):
        pass
    return caplog.text


@pytest.mark.parametrize(
    ("later", "cause"),
    [
        (5, "killed, or the computer was switched off"),
        (9, "memory ran out; if that happens again, use fewer --workers"),
    ],
)
def test_cases_of_a_killed_process_are_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, later: int, cause: str
) -> None:
    kill_at_work(tmp_path)
    for mark in (tmp_path / ".in_work").iterdir():
        mark.write_text("5")
    monkeypatch.setattr(killed_cases, "count_oom_kills", lambda: later)
    text = named(tmp_path, caplog)
    assert f"was ended while it prepared 2 cases: liver_1, liver_2 ({cause})" in text
    assert named(tmp_path, caplog) == ""


def test_an_error_is_no_kill(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        pytest.raises(OSError, match="unreadable"),
        cases_in_work(tmp_path, verb="prepared", remedy="use fewer --workers"),
        marked_in_work(tmp_path, "liver_1"),
    ):
        raise OSError("unreadable")
    assert named(tmp_path, caplog) == ""
    assert not any(tmp_path.iterdir())
