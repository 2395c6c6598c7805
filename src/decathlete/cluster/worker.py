"""What runs in the worker processes. Dask imports these functions by their names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from decathlete.cluster.child import call_in_child
from decathlete.cluster.logs import LogLine, forward_logs
from decathlete.cluster.payload import dumps, loads
from decathlete.cluster.storage import VISIBLE_WITHIN_S, Stamp, probe_path, problems_on_worker
from decathlete.cluster.versions import own_versions
from decathlete.core.parallel import Outcome, attempt


@dataclass(frozen=True, kw_only=True)
class Task:
    """How a worker makes a call.

    Attributes:
        worker_id: the worker process that the command chose. Dask itself starts a task again in a new process that
            has the address of one that died; such a process declines.
        plugins: modules with components, which are imported first.
        topic: Dask topic of log messages; those of a task in a process of its own are sent at once.
        uses_networks: set torch's threads to those of the worker.
    """

    worker_id: str
    plugins: tuple[str, ...] = ()
    topic: str = ""
    own_process: bool = False
    uses_networks: bool = False


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The result of a task; ``outcome`` is ``None`` if the worker declined."""

    outcome: Outcome[Any] | None
    logs: Sequence[LogLine] = ()


def run_task(task: bytes, call: bytes) -> bytes:
    """Apply a function to one case in a worker process.

    Args:
        task: pickled :class:`Task`.
        call: pickled case id, function and case.

    Returns:
        The pickled :class:`Reply`.
    """
    from distributed import get_worker

    settings, worker = loads(task), get_worker()
    if worker.id != settings.worker_id:
        return dumps(Reply(outcome=None))
    for module in settings.plugins:
        import_module(module)
    if settings.own_process:
        return dumps(Reply(outcome=_call_in_child(call, settings, worker)))
    if settings.uses_networks:
        import torch

        torch.set_num_threads(worker.state.nthreads)
    logs: list[LogLine] = []
    with forward_logs(logs.append):
        outcome = attempt(*loads(call))
    return dumps(Reply(outcome=outcome, logs=logs))


def _call_in_child(call: bytes, task: Task, worker: Any) -> Outcome[Any]:
    case_id, key = loads(call)[0], worker.get_current_task()

    def is_cancelled() -> bool:
        state = worker.state.tasks.get(key)
        return state is None or state.state in ("cancelled", "resumed", "released")

    def on_log(line: LogLine) -> None:
        worker.log_event(task.topic, (case_id, *line))

    def run(call: bytes) -> bytes:
        return call_in_child(call, n_threads=worker.state.nthreads, is_cancelled=is_cancelled, on_log=on_log)

    started = attempt(case_id, run, call)
    return started if started.value is None else loads(started.value)


async def inspect_worker(request: Mapping[str, Any], dask_worker: Any) -> dict[str, Any]:
    """Return id, versions and problems of a worker; Dask passes the worker.

    Args:
        request: plain values, since the worker may run another version: ``reads``, ``writes``, ``token``.
    """
    reads: dict[str, Stamp] = {path: found and tuple(found) for path, found in request["reads"].items()}
    problems = await asyncio.to_thread(
        problems_on_worker, reads, request["writes"], request["token"], dask_worker.id, within_s=VISIBLE_WITHIN_S
    )
    return {"id": dask_worker.id, "versions": own_versions(), "problems": problems}


async def remove_replies(writes: Sequence[str], token: str, dask_worker: Any) -> None:
    """Remove the replies of :func:`inspect_worker`."""
    for folder in writes:
        with suppress(OSError):
            probe_path(folder, token, dask_worker.id).unlink(missing_ok=True)


def call(function: Callable[[], None]) -> None:
    """Call a function that is sent by its name."""
    function()
