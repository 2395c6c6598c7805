"""Rendezvous of the processes that a launcher started, before and after Lightning joins them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Protocol, cast

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from torch.distributed.rendezvous import rendezvous

from decathlete.core.documents import parse_json
from decathlete.errors import DecathleteError
from decathlete.training.distributed.failures import error_content, error_from

TIMEOUT = timedelta(minutes=30)
"""How long processes wait for rank 0: as long as torch's own time-out."""
ACKNOWLEDGE_TIMEOUT = timedelta(minutes=1)
"""How long rank 0 waits until its answer has been read; it may be the process that holds the store."""

_numbers = itertools.count()  # trainings of one process must not read each other's answers


class Store(Protocol):
    """The part of torch's key-value stores that is used."""

    def set(self, key: str, value: str) -> None:
        """Publish ``value``."""
        ...

    def get(self, key: str) -> bytes:
        """Wait for the value, then return it."""
        ...

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        """Wait until all keys are set, or raise ``RuntimeError``."""
        ...


class Rendezvous:
    """Runs work on rank 0 for all processes, through the launcher's key-value store (no process group is needed).

    Keep it as long as the training lasts: with it the first process's store would end.

    Args:
        environment: of the launcher; ``None``: this process has no others beside it.

    Raises:
        DecathleteError: the others could not be reached.
    """

    def __init__(self, environment: ClusterEnvironment | None) -> None:
        self._rank = environment.global_rank() if environment else 0
        self._world = environment.world_size() if environment else 1
        self._key = f"decathlete/{next(_numbers)}"
        self._calls = itertools.count()
        self._store = _store(environment) if environment and self._world > 1 else None

    def run_on_rank_zero(self, action: Callable[[], str]) -> str:
        """Run ``action`` on rank 0 and return its result on every rank; the other ranks wait.

        Raises:
            DecathleteError: in every process, if ``action`` raised it in the first.
        """
        if self._store is None:
            return action()
        key = f"{self._key}/{next(self._calls)}"
        if self._rank > 0:
            return self._receive(self._store, key)
        try:
            result = action()
        except BaseException as problem:
            self._publish(self._store, key, {"failed": True, "error": error_content(problem)})
            raise
        self._publish(self._store, key, {"result": result})
        return result

    def _publish(self, store: Store, key: str, content: dict[str, Any]) -> None:
        with suppress(RuntimeError):  # the next call reports that others ended; an own error has priority
            store.set(key, json.dumps(content))
            store.wait([f"{key}/received/{rank}" for rank in range(1, self._world)], ACKNOWLEDGE_TIMEOUT)

    def _receive(self, store: Store, key: str) -> str:
        try:
            store.wait([key], TIMEOUT)
            content = parse_json(store.get(key).decode())
            store.set(f"{key}/received/{self._rank}", "")
        except RuntimeError as problem:
            raise _lost_contact(problem) from problem
        if "failed" in content:
            raise error_from(content["error"]) if content["error"] else _lost_contact("it failed")
        return str(content["result"])


def _store(environment: ClusterEnvironment) -> Store:
    """Open the store that the process group will use, too: torchrun's, else one in the first process."""
    address = environment.main_address
    host = f"[{address}]" if ":" in address else address
    url = f"tcp://{host}:{environment.main_port}"
    rank, world = environment.global_rank(), environment.world_size()
    try:
        store, _, _ = next(rendezvous(url, rank, world, timeout=TIMEOUT))
    except RuntimeError as problem:
        raise _lost_contact(problem) from problem
    return cast(Store, store)


def _lost_contact(why: object) -> DecathleteError:
    return DecathleteError(
        f"the training processes lost contact ({str(why).splitlines()[0]})",
        remedy="look for the first process's own message; start them all again, with --resume",
        code="E-TRAINING-PROCESS",
    )
