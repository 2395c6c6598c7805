"""A Dask cluster of this machine: a scheduler, and workers of one thread each, on given cores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

START_WITHIN_S = 300.0


@dataclass(frozen=True)
class Cluster:
    """A running cluster; a nanny is a process that starts a worker, and a new one when it dies."""

    address: str
    nannies: list[subprocess.Popen[bytes]]

    def kill_worker(self) -> int:
        """Kill the first worker process and return its id."""
        children = psutil.Process(self.nannies[0].pid).children()
        (victim,) = [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
        os.kill(victim, signal.SIGKILL)
        return victim


@contextmanager
def run_cluster(folder: Path, cores: Sequence[int]) -> Iterator[Cluster]:
    """Run a scheduler and one worker for each core; their messages go to ``cluster.log``."""
    file, log = folder / "scheduler.json", (folder / "cluster.log").open("ab")

    def start(*words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            stdout=log,
            stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )

    common = ("--host=127.0.0.1", "--no-dashboard", f"--scheduler-file={file}")
    processes = [start("distributed.cli.dask_scheduler", "--port=0", *common)]
    try:
        until = time.monotonic() + START_WITHIN_S
        while not file.exists():
            assert time.monotonic() < until, "the scheduler does not start"
            time.sleep(0.1)
        options = ("--nthreads=1", "--memory-limit=0", f"--local-directory={folder}")
        processes += [start("distributed.cli.dask_worker", *common, *options) for _ in cores]
        yield Cluster(json.loads(file.read_text())["address"], processes[1:])
    finally:
        for process in reversed(processes):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()
        log.close()
