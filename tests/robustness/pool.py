"""Runs cases in several child processes, replaces those that crash or hang, and says so in the outcome."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from robustness.outcomes import CRASH, HANG, HARNESS, MEMORY, Case, Outcome

HANG_S = 30.0
"""Processor time of one case, and time without any of it, that count as hanging, also on a busy machine."""

_POLL_S = 0.25
_CASES_PER_PROCESS = 1000
_PR_SET_PDEATHSIG = 1
_TESTS = Path(__file__).parents[1]


class Child:
    """One process that runs cases.

    Args:
        module: with the loop that answers.
        memory: whether memory is compared with that of honest inputs.
        cache: folder of honest inputs that are costly to make.
    """

    def __init__(self, cache: Path, module: str = "robustness.child", *, memory: bool = True) -> None:
        self.n_cases = 0
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", module, str(cache), "memory" if memory else "no-memory"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=_environment() | {"TMPDIR": str(cache)},  # what a crash leaves goes with the cache
            start_new_session=True,
            preexec_fn=end_with_parent,
        )

    def run(self, case: Case) -> Outcome:
        """Run a case, and watch the process until it answers, ends or hangs."""
        self.n_cases += 1
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(vars(case)).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return self._ended(case)
        watch = Watch(self.process.pid)
        while not select.select([self.process.stdout], [], [], _POLL_S)[0]:
            if (cause := watch.hanging()) is not None:
                detail = _stack(self.process.pid)
                self.close()
                return Outcome(case=case, result=HANG, cause=f"{case.action}: {cause}", detail=detail)
        line = self.process.stdout.readline()
        if not line:
            return self._ended(case)
        answer: dict[str, Any] = json.loads(line)
        return Outcome(**(answer | {"case": Case(**answer["case"])}))

    def _ended(self, case: Case) -> Outcome:
        code = self.process.wait()
        self.errors.seek(0)
        text = self.errors.read()[:6000].decode(errors="replace")
        if code >= 0:
            return Outcome(case=case, result=HARNESS, cause=f"{case.action}: {text.strip().rpartition(chr(10))[2]}")
        frames = [line.strip() for line in text.splitlines() if "/decathlete/" in line]
        place = frames[0].rpartition("/decathlete/")[2].replace('"', "") if frames else "native code"
        cause = f"{case.action}: {signal.Signals(-code).name} in {place}"
        result = MEMORY if code == -signal.SIGKILL else CRASH  # the system kills what fills the memory
        return Outcome(case=case, result=result, cause=cause, detail=text)

    @property
    def is_alive(self) -> bool:
        """Whether it can run another case."""
        return self.process.poll() is None and self.n_cases < _CASES_PER_PROCESS

    def close(self) -> None:
        """End the process and all that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                stream.close()


def end_with_parent() -> None:
    """Let the system kill this process when its parent ends (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Watch:
    """Tells whether a process hangs, by the processor time of it and its children, not by a clock alone.

    Args:
        limit_s: most processor time, s; ``None``: :data:`HANG_S`.
    """

    def __init__(self, pid: int, *, limit_s: float | None = None) -> None:
        self._limit_s = HANG_S if limit_s is None else limit_s
        self._process = psutil.Process(pid)
        self._start = self._last = self._cpu_s()
        self._idle_s = 0.0
        self._seen = time.monotonic()

    def _cpu_s(self) -> float:
        total = 0.0
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def hanging(self) -> str | None:
        """Return why the process counts as hanging, or ``None``."""
        try:
            now_s, status = self._cpu_s(), self._process.status()
        except psutil.NoSuchProcess:
            return None
        clock = time.monotonic()
        waiting = status == psutil.STATUS_SLEEPING and now_s - self._last < 0.01
        self._idle_s = self._idle_s + min(clock - self._seen, 4 * _POLL_S) if waiting else 0.0
        self._last, self._seen = max(now_s, self._last), clock
        if now_s - self._start > self._limit_s:
            return f"more than {self._limit_s:.0f} s of processor time"
        return f"blocked for {HANG_S:.0f} s" if self._idle_s > HANG_S else None


def _stack(pid: int) -> str:
    """Return the Python stack of a hanging process."""
    program = Path(sys.executable).parent / "py-spy"
    if not program.exists():
        return ""
    done = subprocess.run([program, "dump", "--pid", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout[-3000:]


def _environment() -> dict[str, str]:
    """One thread, little memory that is kept for nothing, and the tests' modules."""
    paths = [str(_TESTS), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run_cases(
    cases: Sequence[Case],
    *,
    workers: int,
    cache: Path,
    memory: bool = True,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run all cases in ``workers`` processes and return their outcomes, in the order of the cases.

    After ctrl-C, the outcomes until then are returned.
    """
    waiting: queue.Queue[tuple[int, Case]] = queue.Queue()
    for item in enumerate(cases):
        waiting.put(item)
    found: dict[int, Outcome] = {}
    failures: list[BaseException] = []
    cache.mkdir(parents=True, exist_ok=True)

    def work() -> None:
        child: Child | None = None
        try:
            while not failures:
                try:
                    index, case = waiting.get_nowait()
                except queue.Empty:
                    return
                if child is None or not child.is_alive:
                    if child is not None:
                        child.close()
                    child = Child(cache, memory=memory)
                found[index] = child.run(case)
                on_outcome(found[index])
        except BaseException as problem:
            failures.append(problem)
        finally:
            if child is not None:
                child.close()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt as problem:  # what is done is returned
        failures.append(problem)
        for thread in threads:
            thread.join()
    if failures and not isinstance(failures[0], KeyboardInterrupt):
        raise failures[0]
    return [found[index] for index in sorted(found)]
