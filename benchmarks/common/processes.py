"""Each measurement in a process of its own, on the cores it is given, with as many threads.

The process reads its task as JSON from its first argument and prints one line of JSON, behind :data:`RESULT`: what it
runs may print a lot. Needs the standard library alone: the peers' environment has no Decathlete.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when its parent ends."""
RESULT = "RESULT "
"""How the line begins that the driver looks for."""
STATUS = Path("/proc/self/status")
"""Where Linux tells of the running process."""


class WorkFailed(Exception):
    """A process ended without a result; its output is the message."""


def run_alone(script: Path, task: Mapping[str, Any], *, python: Path, cores: Sequence[int]) -> dict[str, Any]:
    """Run ``script`` in a new process and give what it told; nothing if it told nothing.

    Raises:
        WorkFailed: it ended with an error.
    """
    # no pipes: workers of a process that crashed would keep them open
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [str(python), str(script), json.dumps(task)],
            stdout=output,
            stderr=errors,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(len(cores)), "MKL_NUM_THREADS": str(len(cores))},
            preexec_fn=partial(_begin, cores),
            start_new_session=True,
        )
        try:
            exit_code = process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        errors.seek(0)
        told, complained = output.read(), errors.read()
    if exit_code != 0:
        reason = f"\nended by signal {-exit_code}" if exit_code < 0 else ""
        raise WorkFailed(last_lines(told + complained) + reason)
    lines = [line for line in told.splitlines() if line.startswith(RESULT)]
    return json.loads(lines[-1].removeprefix(RESULT)) if lines else {}


def _begin(cores: Sequence[int]) -> None:
    """Take the cores, and end when the driver is killed: the next measurement must not run beside this one."""
    os.sched_setaffinity(0, cores)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def tell(result: Mapping[str, Any]) -> None:
    """Hand the result over to the driver."""
    print(RESULT + json.dumps(result))


def last_lines(output: str, n: int = 8) -> str:
    """Where the reason stands."""
    return "\n".join(output.splitlines()[-n:])


def peak_bytes() -> int:
    """Resident memory at its greatest, of this process or its largest child.

    A process that was forked begins with its parent's peak in ``getrusage``; Linux also has the peak of its program.
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    if STATUS.is_file():
        own = next((line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if own is not None:
            return max(int(own.split()[1]) * 1024, children)
    return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, children)
