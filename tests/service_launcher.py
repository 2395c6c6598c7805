"""Starts `decathlete` commands in processes forked from one that has imported everything: a start takes a moment.

Reads lines of JSON from standard input: ``{"start": ARGUMENTS, "log": FILE}`` prints the number of the new process,
``{"wait": PID}`` prints its exit status when it has ended. The processes end with their standard input.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from decathlete.cli.main import main
from decathlete.inference.engines.torch import TorchEngine  # noqa: F401 - imported before the fork
from decathlete.serving.http.server import serve  # noqa: F401


def start(arguments: list[str], log: str) -> int:
    """Fork a process that runs a command."""
    pid = os.fork()
    if pid:
        return pid
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.argv = ["decathlete", *arguments]
    try:
        main()
    except SystemExit as stop:
        os._exit(stop.code if isinstance(stop.code, int) else 0)
    os._exit(0)


def answer(request: dict[str, object]) -> int:
    """Do what one line asks for."""
    if "start" in request:
        return start(list(request["start"]), str(request["log"]))  # type: ignore[call-overload]
    return os.waitstatus_to_exitcode(os.waitpid(int(str(request["wait"])), 0)[1])


if __name__ == "__main__":
    children: list[int] = []
    for line in sys.stdin:
        asked = json.loads(line)
        number = answer(asked)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        if "start" in asked:
            children.append(number)
        else:
            children.remove(asked["wait"])
    for child in children:
        os.kill(child, signal.SIGKILL)
