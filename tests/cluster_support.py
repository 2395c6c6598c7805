"""Functions that tests send to workers of a cluster, which import them by name."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

import decathlete
from decathlete.errors import ImageError
from guards import HANG_S

log = logging.getLogger("decathlete.tests")


@dataclass(frozen=True, kw_only=True)
class Item:
    """A case that a test sends."""

    number: int
    folder: Path


def square(item: Item) -> int:
    """Leave a trace of the attempt, and return the square."""
    leave_trace(item)
    return item.number**2


def leave_trace(item: Item) -> None:
    """Append the process to a file, so that tests see how often and where a case was tried."""
    with (item.folder / f"{item.number}.tries").open("a") as stream:
        stream.write(f"{os.getpid()}\n")


def tries(folder: Path, number: int) -> list[str]:
    """Return the processes that tried a case."""
    return (folder / f"{number}.tries").read_text().split()


def square_slowly(item: Item) -> int:
    """Take a while, so that a worker can be killed meanwhile."""
    leave_trace(item)
    time.sleep(0.3)
    return item.number**2


def kill_worker_at_7(item: Item) -> int:
    """Kill the worker that has case 7."""
    leave_trace(item)
    if item.number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return item.number**2


def fail_at_7(item: Item) -> int:
    """Fail with an error of the user's data, and log."""
    log.warning("case %d is here", item.number)
    if item.number == 7:
        raise ImageError("is bad", where=item.folder / "7.nii", remedy="look", code="E-IMAGE-DAMAGED")
    return item.number


def sleep_long(item: Item) -> None:
    """Leave a trace, and sleep until something ends the process."""
    leave_trace(item)
    time.sleep(HANG_S)


def bug(item: Item) -> int:
    """Raise what is no user's error."""
    raise ZeroDivisionError("a bug")


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        nannies: processes that start a worker process, and a new one when it dies.
    """

    address: str
    nannies: list[subprocess.Popen[bytes]]

    def worker_pids(self) -> list[int]:
        """Return the worker processes of each nanny (its helper process is left out)."""
        pids = []
        for nanny in self.nannies:
            with suppress(psutil.NoSuchProcess):  # it was killed, or ends now
                children = psutil.Process(nanny.pid).children()
                pids += [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
        return pids

    def kill_worker(self) -> int:
        """Kill a worker process."""
        wait_until(lambda: bool(self.worker_pids()))
        victim = self.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
        return victim


@contextmanager
def run_cluster(folder: Path, *, n_workers: int = 2, options: Sequence[str] = ()) -> Iterator[Cluster]:
    """Run a scheduler and workers of one thread each, as a user starts them; ``options`` are those of the workers."""
    here, source = Path(__file__).parent, Path(decathlete.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(source), str(here)])}
    file, log = folder / "scheduler.json", (folder / "cluster.log").open("ab")

    def start(*words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", *words], env=environment, stdout=log, stderr=log)

    processes = [
        start(
            "distributed.cli.dask_scheduler",
            "--host=127.0.0.1",
            "--port=0",
            f"--scheduler-file={file}",
            "--no-dashboard",
        )
    ]
    worker = (
        "distributed.cli.dask_worker",
        f"--scheduler-file={file}",
        "--nthreads=1",
        "--host=127.0.0.1",
        "--no-dashboard",
    )
    try:
        wait_until(lambda: read_address(file) is not None)
        for _ in range(n_workers):
            processes.append(start(*worker, f"--local-directory={folder}", "--memory-limit=0", *options))
        yield Cluster(address=read_address(file) or "", nannies=processes[1:])
    finally:
        for process in reversed(processes):  # not by their own shutdown, which waits for workers that are just started
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()
        log.close()


def read_address(scheduler_file: Path) -> str | None:
    """Return the scheduler's address; ``None``: its file is not there yet, or not whole."""
    with suppress(FileNotFoundError, json.JSONDecodeError):
        return str(json.loads(scheduler_file.read_text())["address"])
    return None


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that other processes do."""
    until = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
