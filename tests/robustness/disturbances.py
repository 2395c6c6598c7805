"""Faults of the machine: full, read-only and forbidden folders, little memory, two commands at once, dead processes."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from robustness.datasets import write_files
from robustness.judging import judge_message
from robustness.kills import Reference, remove
from robustness.outcomes import (
    CLEAN,
    CRASH,
    EQUAL,
    HANG,
    LEFT,
    LOST,
    MEMORY,
    SKIPPED,
    TRACEBACK,
)
from robustness.processes import Command
from robustness.scenarios import says_finished
from robustness.snapshots import compare, take_snapshot, temporary_files

Fault = Callable[[Reference, Path], tuple[str, str]]
"""Runs a command under a fault in a folder, and returns result and cause."""

_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _PR_CAPBSET_DROP = 1, 2, 24


def _end(command: Command, names: set[str]) -> tuple[str, str]:
    """Wait for a command and judge its message: it succeeds, or says what was wrong."""
    code = command.wait()
    output = command.output
    if code is None:
        return HANG, "hangs"
    if code < 0:
        return CRASH, signal.Signals(-code).name
    if "Traceback (most recent call last)" in output:
        return TRACEBACK, output.strip().splitlines()[-1][:120]
    if code == 0:
        return EQUAL, ""
    finding = judge_message(output, names)
    return finding.result, finding.cause


def _after(reference: Reference, place: Path) -> tuple[str, str]:
    """Repeat the command without the fault: its results are those of an undisturbed one."""
    scenario = reference.scenario
    command = Command([*scenario.arguments(place), *scenario.resuming], place)
    result, cause = _end(command, {"\n"})
    if result != EQUAL and not says_finished(command.output):
        return LOST, f"repeated without the fault: {result} {cause}"
    if left := temporary_files(place):
        return LEFT, f"temporary files stay: {', '.join(left[:3])}"
    difference = compare(reference.snapshot, take_snapshot(place, scenario.roots))
    return (LOST, f"results differ afterwards: {difference}") if difference else (EQUAL, "")


def _then(first: tuple[str, str], reference: Reference, place: Path) -> tuple[str, str]:
    """A clean end is followed by the command without the fault."""
    if first[0] not in (EQUAL, CLEAN):
        return first
    after = _after(reference, place)
    return first if after[0] == EQUAL else after


def _mount(place: Path, option: str) -> bool:
    return subprocess.run(["mount", "-o", option, str(place)], capture_output=True, check=False).returncode == 0


@contextmanager
def _small_disk(place: Path, size: str) -> Iterator[bool]:
    """A file system in memory of ``size``; ``False`` where the user may not make one."""
    place.mkdir(parents=True, exist_ok=True)
    arguments = ["mount", "-t", "tmpfs", "-o", f"size={size}", "robustness", str(place)]
    mounted = subprocess.run(arguments, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=False)


def full_disk(reference: Reference, place: Path) -> tuple[str, str]:
    """The disk is full before the command has written half of its results; later there is room."""
    written = _size_of_results(reference, place.parent / f"{place.name}-size")
    inputs = sum(len(content) for content in reference.files.values())
    with _small_disk(place, "64m") as mounted:
        if not mounted:
            return SKIPPED, "no file system may be mounted"
        write_files(reference.files, place)
        used = shutil.disk_usage(place).used
        _mount(place, f"remount,size={(used + max(written // 2, 8192)) // 4096 * 4096}")
        first = _end(Command(reference.scenario.arguments(place), place), {str(place)})
        if first[0] == EQUAL:
            return SKIPPED, f"{written} bytes of results fit beside {inputs}"
        _mount(place, "remount,size=256m")
        return _then(first, reference, place)


def _size_of_results(reference: Reference, place: Path) -> int:
    write_files(reference.files, place)
    before = {p: p.stat().st_size for p in place.rglob("*") if p.is_file()}
    Command(reference.scenario.arguments(place), place).wait()
    after = {p: p.stat().st_size for p in place.rglob("*") if p.is_file()}
    remove(place)
    return sum(size for path, size in after.items() if path not in before)


def read_only(reference: Reference, place: Path) -> tuple[str, str]:
    """The file system of the results may be read only; later it may be written."""
    with _small_disk(place, "64m") as mounted:
        if not mounted:
            return SKIPPED, "no file system may be mounted"
        write_files(reference.files, place)
        _mount(place, "remount,ro")
        first = _end(Command(reference.scenario.arguments(place), place), {str(place)})
        _mount(place, "remount,rw")
        return _then(first, reference, place) if first[0] != EQUAL else (LOST, "succeeds without writing")


def _without_override() -> None:
    """Take root's right to ignore permissions from the process that is started next."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def no_permission(reference: Reference, place: Path) -> tuple[str, str]:
    """The folders of results belong to nobody who may write them; later they do."""
    write_files(reference.files, place)
    folders = [place / root for root in reference.scenario.roots]
    folders += [p for folder in folders for p in folder.rglob("*") if p.is_dir()]
    for folder in folders:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o500)
    command = Command(
        reference.scenario.arguments(place), place, before=_without_override if os.geteuid() == 0 else None
    )
    first = _end(command, {str(place)})
    for folder in folders:
        folder.chmod(0o755)
    return _then(first, reference, place) if first[0] != EQUAL else (LOST, "succeeds without permission")


def little_memory(reference: Reference, place: Path) -> tuple[str, str]:
    """The address space ends a little below what the command needs."""
    write_files(reference.files, place)
    peak = _peak_address_space(reference, place.parent / f"{place.name}-size")
    for share in (0.98, 0.95, 0.9):

        def limit(share: float = share) -> None:
            resource.setrlimit(resource.RLIMIT_AS, (int(share * peak), resource.RLIM_INFINITY))

        command = Command(reference.scenario.arguments(place), place, before=limit)
        result, cause = _end(command, {str(place), ""})
        if result not in (EQUAL, CLEAN, MEMORY):  # here the computer may be blamed
            return result, f"with {share:.0%} of the address space: {cause}"
    return CLEAN, ""


def _peak_address_space(reference: Reference, place: Path) -> int:
    write_files(reference.files, place)
    command = Command(reference.scenario.arguments(place), place)
    peak = 0
    while command.process.poll() is None:
        for process in command.tree()[:1]:
            try:
                peak = max(peak, process.memory_info().vms)
            except psutil.NoSuchProcess:
                break
        time.sleep(0.01)
    remove(place)
    return peak


def two_at_once(reference: Reference, place: Path) -> tuple[str, str]:
    """Two commands work in the same folders: one may say so and end, the other finishes."""
    write_files(reference.files, place)
    first = Command(reference.scenario.arguments(place), place)
    first.wait_until(0.3 * reference.cpu_s)
    other_log = place.parent / f"{place.name}-other"
    other_log.mkdir()
    second = Command([*reference.scenario.arguments(place), *reference.scenario.resuming], other_log)
    ends = [_end(first, {str(place)}), _end(second, {str(place)})]
    for result, cause in ends:
        if result not in (EQUAL, CLEAN):
            return result, cause
    if not any(result == EQUAL for result, _ in ends):
        return LOST, f"neither finishes: {ends[0][1]} / {ends[1][1]}"
    return _then((CLEAN, ends[1][1]), reference, place)


def dead_worker(reference: Reference, place: Path) -> tuple[str, str]:
    """A process that the command has started is killed."""
    write_files(reference.files, place)
    command = Command(reference.scenario.arguments(place), place)
    deadline = 0.9 * reference.cpu_s
    while command.process.poll() is None and command.cpu_s() < deadline:
        children = [p for p in command.tree()[1:] if "resource_tracker" not in _command_line(p)]
        if children and command.cpu_s() > 0.6 * reference.cpu_s:
            children[-1].kill()
            first = _end(command, {"process"})
            return _then(first, reference, place)
        time.sleep(0.05)
    command.wait()
    return SKIPPED, "starts no processes"


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return "resource_tracker"  # nothing to kill


def dead_parent(reference: Reference, place: Path) -> tuple[str, str]:
    """The first process of several is killed: the others end, too."""
    write_files(reference.files, place)
    command = Command(reference.scenario.arguments(place), place)
    command.wait_until(0.6 * reference.cpu_s)
    n_others = len(command.survivors()) - 1
    command.process.kill()
    command.process.wait()
    for _ in range(120):
        if not command.survivors():
            return _then((CLEAN, f"{n_others} processes ended"), reference, place)
        time.sleep(0.5)
    count = len(command.survivors())
    command.kill_session()
    return LEFT, f"{count} processes outlive their parent"
