"""A task in a process of its own: a fold, whose training needs the main thread, all threads of its worker, and memory
that is free again at its end.

The process ends with its worker: it watches its standard input, which the system closes when the worker dies.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from io import RawIOBase
from multiprocessing.connection import Connection

from decathlete.cluster.logs import LogLine, forward_logs
from decathlete.cluster.payload import dumps, loads
from decathlete.core.machine import count_oom_kills
from decathlete.core.parallel import attempt
from decathlete.core.process_end import describe_end
from decathlete.errors import ClusterError

POLL_S = 1.0
STOP_WITHIN_S = 60.0
"""Seconds in which a stopped training saves its state."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def call_in_child(
    call: bytes, *, n_threads: int, is_cancelled: Callable[[], bool], on_log: Callable[[LogLine], None]
) -> bytes:
    """Make a call in a new process; return the pickled :class:`~decathlete.core.parallel.Outcome`.

    Args:
        call: pickled case id, function and case.
        n_threads: threads of the new process.
        is_cancelled: asked every second; if true, the process is stopped by SIGTERM.
        on_log: receives the messages of Decathlete's loggers.

    Raises:
        ClusterError: the process died or was cancelled.
        RuntimeError: the call or its result cannot be pickled; contains the traceback.
    """
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "decathlete.cluster", str(writer)],
        stdin=subprocess.PIPE,
        pass_fds=[writer],
        env=os.environ  # inherited as by every child process; no setting is read from it
        | dict.fromkeys(_THREADS, str(n_threads))
        | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    os.close(writer)
    assert process.stdin is not None  # for the type checker: it is a pipe
    with process.stdin as stdin, Connection(reader, writable=False) as messages:
        with suppress(BrokenPipeError):  # the process died: see below
            stdin.write(len(call).to_bytes(8, "big") + call)
            stdin.flush()
        try:
            return _receive(messages, process, is_cancelled, on_log)
        finally:
            _stop(process)


def _receive(
    messages: Connection,
    process: subprocess.Popen[bytes],
    is_cancelled: Callable[[], bool],
    on_log: Callable[[LogLine], None],
) -> bytes:
    oom_kills = count_oom_kills()
    while True:
        if not messages.poll(POLL_S):
            if is_cancelled():
                _stop(process)
                raise ClusterError("was cancelled", remedy="run the same command again to resume")
            continue
        try:
            kind, content = loads(messages.recv_bytes())
        except EOFError:
            ended = describe_end(process.wait(), oom_kills_before=oom_kills)
            raise ClusterError(
                f"its process {ended}",
                remedy="look at the log of the worker; if memory ran out, start workers with more of it; then run the "
                "same command again to resume",
                code="E-CLUSTER-CRASH",
            ) from None
        if kind == "log":
            on_log(content)
        elif kind == "bug":
            raise RuntimeError(content)
        else:
            return bytes(content)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process if it still runs: SIGTERM, and SIGKILL if it does not save its state in time."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main(writer: int) -> None:
    """Read a call from standard input, make it, and write messages and the outcome to a file descriptor."""
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
        call = _read_exactly(stdin, int.from_bytes(_read_exactly(stdin, 8), "big"))
    threading.Thread(target=_end_with_worker, daemon=True).start()
    lock = threading.Lock()
    with Connection(writer, readable=False) as messages:

        def send(kind: str, content: object) -> None:
            with lock:
                messages.send_bytes(dumps((kind, content)))

        with forward_logs(lambda line: send("log", line), of_all_threads=True):
            try:
                send("outcome", _call(call))
            except Exception:
                import traceback

                send("bug", traceback.format_exc())


def _call(call: bytes) -> bytes:
    case_id, function, item = loads(call)
    return dumps(attempt(case_id, function, item))


def _read_exactly(stream: RawIOBase, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := stream.read(size - len(data))):
        data += part
    return data


def _end_with_worker() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the worker closes the pipe or dies
    os.kill(os.getpid(), signal.SIGKILL)
