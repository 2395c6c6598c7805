"""What the machine has free, read from files as Linux writes them; how a process ended."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from decathlete.core import machine, process_end
from decathlete.core.machine import available_memory_bytes, cgroup_memory_bytes, count_oom_kills
from decathlete.core.process_end import describe_end


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own"
    path.write_text("0::/batch/job\n")
    return path


def test_the_limits_of_all_groups_count(tmp_path: Path, own: Path) -> None:
    root = tmp_path / "cgroup"
    write(root / "batch" / "job", memory__max="max\n", memory__current="70\n")
    write(root / "batch", memory__max="100\n", memory__current="80\n", memory__stat="anon 5\ninactive_file 30\n")
    assert list(cgroup_memory_bytes(root, own)) == [50]


def test_version_1_has_other_names_and_a_huge_number_for_no_limit(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/job\n4:memory:/job\n")
    write(root / "memory" / "job", memory__limit_in_bytes="1000\n", memory__usage_in_bytes="400\n")
    write(root / "memory", memory__limit_in_bytes=f"{2**63 - 4096}\n", memory__usage_in_bytes="400\n")
    assert list(cgroup_memory_bytes(root, own)) == [600]


def test_a_system_without_groups_has_no_limits(tmp_path: Path) -> None:
    assert list(cgroup_memory_bytes(tmp_path / "none", tmp_path / "neither")) == []
    assert count_oom_kills(tmp_path / "none", tmp_path / "neither", tmp_path / "nor") is None


def test_the_least_of_computer_and_groups_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "psutil", SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=900)))
    monkeypatch.setattr(machine, "cgroup_memory_bytes", lambda: [1000, 300])
    assert available_memory_bytes() == 300
    monkeypatch.setattr(machine, "cgroup_memory_bytes", lambda: [-5])
    assert available_memory_bytes() == 0


def test_killed_processes_are_counted(tmp_path: Path, own: Path) -> None:
    root, vmstat = tmp_path / "cgroup", tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 5\noom_kill 2\n")
    assert count_oom_kills(root, own, vmstat) == 2
    write(root / "batch", memory__events="oom 4\noom_kill 3\n")
    assert count_oom_kills(root, own, vmstat) == 3


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (1, 2, "memory ran out, and the system ended it"),
        (1, 1, "another program or the batch system ended it; the system reports no lack of memory"),
        (None, 1, "probably memory ran out"),
        (1, None, "probably memory ran out"),
    ],
)
def test_a_kill_is_for_lack_of_memory_if_the_system_says_so(
    before: int | None, now: int | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_end, "count_oom_kills", lambda: now)
    assert describe_end(-signal.SIGKILL, oom_kills_before=before) == f"was ended by SIGKILL ({expected})"


def test_other_ends() -> None:
    assert describe_end(1) == "ended with exit code 1"
    assert describe_end(-signal.SIGUSR1) == "was ended by SIGUSR1"
    assert describe_end(-250) == "was ended by signal 250"
