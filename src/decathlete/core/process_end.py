"""Describe how a process ended: by which signal, and whether memory ran out."""

from __future__ import annotations

import signal

from decathlete.core.machine import count_oom_kills

_CAUSES = {
    signal.SIGBUS: "a memory-mapped file could not be accessed; check the free disk space, also of /dev/shm",
    signal.SIGSEGV: "a compiled library crashed",
    signal.SIGABRT: "a compiled library stopped",
    signal.SIGTERM: "another program, or the batch system, ended it",
}


def describe_end(exit_code: int, *, oom_kills_before: int | None = None) -> str:
    """Return how a process ended, as the end of a sentence that begins with the process.

    Args:
        exit_code: as :mod:`subprocess` and :mod:`multiprocessing` report it: -N for signal N.
        oom_kills_before: :func:`~decathlete.core.machine.count_oom_kills` when the process started, which decides
            whether a SIGKILL came from the system for lack of memory; ``None``: unknown.

    >>> describe_end(3)
    'ended with exit code 3'
    >>> describe_end(-11)
    'was ended by SIGSEGV (a compiled library crashed)'
    >>> describe_end(-9)
    'was ended by SIGKILL (probably memory ran out)'
    """
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        number = signal.Signals(-exit_code)
    except ValueError:  # a real-time signal
        return f"was ended by signal {-exit_code}"
    cause = _cause_of_kill(oom_kills_before) if number == signal.SIGKILL else _CAUSES.get(number)
    return f"was ended by {number.name}" + (f" ({cause})" if cause else "")


def _cause_of_kill(oom_kills_before: int | None) -> str:
    oom_kills = count_oom_kills()
    if oom_kills_before is None or oom_kills is None:
        return "probably memory ran out"
    if oom_kills > oom_kills_before:
        return "memory ran out, and the system ended it"
    return "another program or the batch system ended it; the system reports no lack of memory"
