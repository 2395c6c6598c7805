"""Starts commands as users do, in processes of their own, and watches, signals and ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from robustness.pool import Watch
from robustness.snapshots import temporary_folder

_POLL_S = 0.02
_LIMIT_S = 600.0
"""Processor time of a whole command, s; the longest needs about 20."""


class Command:
    """A running ``decathlete ARGUMENTS`` in a session of its own.

    Args:
        folder: working folder; temporary files go to the folder :func:`temporary_folder` beside it.
        prefix: a program that starts it.
        before: called in the new process before it becomes Python.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        prefix: Sequence[str] = (),
        before: Callable[[], None] | None = None,
    ) -> None:
        self.used_s = 0.0
        temporary = temporary_folder(folder)
        temporary.mkdir(exist_ok=True)
        self.log = folder.parent / f"{folder.name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-X", "faulthandler", "-m", "decathlete", *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
                start_new_session=True,
                preexec_fn=before,
            )

    @property
    def output(self) -> str:
        """All that was printed until now."""
        return self.log.read_text(errors="replace")

    def cpu_s(self) -> float:
        """Return the processor time until now, with that of child processes, s."""
        total = 0.0
        for process in self.tree():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total

    def tree(self) -> list[psutil.Process]:
        """Return the process and its living descendants."""
        try:
            process = psutil.Process(self.process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def wait_until(self, cpu_s: float) -> bool:
        """Wait until the command has used so much processor time; ``False`` if it ended before."""
        while self.process.poll() is None:
            if self.cpu_s() >= cpu_s:
                return True
            time.sleep(_POLL_S)
        return False

    def wait(self) -> int | None:
        """Wait for the end and return the exit code; ``None``: it hangs, and was killed."""
        watch = Watch(self.process.pid, limit_s=_LIMIT_S)
        while self.process.poll() is None:
            self.used_s = max(self.used_s, self.cpu_s())
            if watch.hanging() is not None:
                self.kill_session()
                return None
            time.sleep(_POLL_S * 5)
        return self.process.returncode

    def survivors(self) -> list[psutil.Process]:
        """Return the living processes of the session."""
        found = []
        for process in psutil.process_iter():
            try:
                same = os.getsid(process.pid) == self.process.pid
                if same and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found

    def kill_session(self) -> None:
        """Kill all processes of the session."""
        for process in self.survivors():
            process.kill()
        self.process.wait()


def send(command: Command, number: signal.Signals) -> None:
    """Send a signal as it comes in practice: ctrl-C to all processes of the terminal, others to the first one."""
    if number == signal.SIGINT:
        os.killpg(command.process.pid, number)
    else:
        os.kill(command.process.pid, number)
