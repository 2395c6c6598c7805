"""Several training processes on one machine, spawned from a script, a test or a console command."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from decathlete.core.log_format import stderr_handler
from decathlete.core.machine import count_oom_kills
from decathlete.core.parallel import end_with_parent
from decathlete.core.process_end import describe_end
from decathlete.errors import DecathleteError, InterruptedRunError
from decathlete.training.distributed.failures import read_failure, write_failure
from decathlete.training.loop.signals import EndNow, forward
from decathlete.training.loop.task import TrainTask
from decathlete.training.reporting.progress import LogProgress, TrainingProgress

HOST = "127.0.0.1"


class SpawnedEnvironment(ClusterEnvironment):  # type: ignore[misc]
    """Lightning's cluster environment of processes that :func:`spawn` started on this machine."""

    def __init__(self, *, rank: int, world: int, port: int) -> None:
        self._rank = rank
        self._world = world
        self._port = port

    @property
    def creates_processes_externally(self) -> bool:
        """All processes have been started."""
        return True

    @property
    def main_address(self) -> str:
        """Address at which rank 0 listens."""
        return HOST

    @property
    def main_port(self) -> int:
        """Port at which rank 0 listens."""
        return self._port

    @staticmethod
    def detect() -> bool:
        """Return ``False``: this environment is chosen, never detected."""
        return False

    def world_size(self) -> int:
        """Return the number of processes."""
        return self._world

    def set_world_size(self, size: int) -> None:
        """Do nothing: the number is fixed."""

    def global_rank(self) -> int:
        """Return the rank of this process."""
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the rank is fixed."""

    def local_rank(self) -> int:
        """Return the rank of this process on this machine."""
        return self._rank

    def node_rank(self) -> int:
        """Rank of the only machine."""
        return 0


Fit = Callable[[TrainTask, TrainingProgress, SpawnedEnvironment], object]


def spawn(fit: Fit, task: TrainTask, progress: TrainingProgress) -> int:
    """Run ``fit`` in one process per device and wait for all; a signal is forwarded to them, a second one ends them.

    Args:
        fit: a function of a module (it is found by its name).

    Returns:
        The number of the signal that asked to stop; 0: none.

    Raises:
        DecathleteError: that one of them raised; or one was killed.
        InterruptedRunError: by a second signal, or by one that came while the processes started.
    """
    arguments = (fit, task, _portable(progress), _free_port())
    n, oom_kills = task.hardware.devices, count_oom_kills()
    processes = start_processes(_worker, arguments, nprocs=n, join=False, start_method="spawn")  # type: ignore[no-untyped-call]
    received: list[int] = []

    def pass_on(number: int) -> None:
        received.append(number)
        _send(processes.pids(), number)

    forward(pass_on)
    try:
        while not processes.join():
            pass
    except EndNow as request:
        _send(processes.pids(), signal.SIGKILL)
        for process in processes.processes:
            process.join()
        raise ended_at_once(request, task) from None
    except ProcessRaisedException:
        error = read_failure(task)
        if error is None:
            raise
        raise error from None
    except ProcessExitedException as problem:
        if received and problem.exit_code in (-received[0], 1):  # while they start, they have no handler for it
            raise _ended_by_signal(received[0], task) from None
        ended = describe_end(problem.exit_code, oom_kills_before=oom_kills)
        raise DecathleteError(
            f"training process {problem.error_index} of {n} {ended}",
            where=task.folder,
            remedy="look at its output; if memory ran out, lower --devices or --batch-size; then run the command again "
            "(train: with --resume)",
            code="E-TRAINING-PROCESS",
        ) from None
    return received[0] if received else 0


def _ended_by_signal(signal_number: int, task: TrainTask) -> InterruptedRunError:
    return InterruptedRunError(
        "a signal ended the processes while they started; what was saved before is kept",
        signal_number=signal_number,
        where=task.folder,
    )


def ended_at_once(request: EndNow, task: TrainTask) -> InterruptedRunError:
    """Return the error about a training that a second signal ended."""
    return InterruptedRunError(
        "training was ended by a second signal; the last checkpoint is kept",
        signal_number=request.signal_number,
        where=task.folder,
    )


def _worker(rank: int, fit: Fit, task: TrainTask, progress: TrainingProgress, port: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the training installs a handler, and not KeyboardInterrupt
    end_with_parent()
    logging.basicConfig(level=logging.WARNING, handlers=[stderr_handler()])
    logging.getLogger("decathlete").setLevel(task.log_level)
    if task.hardware.kind == "cpu":  # processes that each use all cores wait for one another
        torch.set_num_threads(max(1, torch.get_num_threads() // task.hardware.devices))
    try:
        fit(task, progress, SpawnedEnvironment(rank=rank, world=task.hardware.devices, port=port))
    except Exception as problem:
        write_failure(task, problem)
        raise


def _portable(progress: TrainingProgress) -> TrainingProgress:
    """Return ``progress`` if it can be pickled, else lines in the log."""
    try:
        pickle.dumps(progress)
    except (pickle.PicklingError, TypeError, AttributeError):
        return LogProgress()
    return progress


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # it has ended
            os.kill(pid, number)
