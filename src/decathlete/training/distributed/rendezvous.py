"""What the processes that a launcher started agree on before and after Lightning joins them: the first one decides."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Protocol, cast

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from torch.distributed.rendezvous import rendezvous

from decathlete.errors import DecathleteError
from decathlete.training.distributed.failures import error_content, error_from

PATIENCE = timedelta(minutes=30)
"""That processes wait for the first one: as long as torch lets them wait for one another."""
FAREWELL = timedelta(minutes=1)
"""That the first one waits until it has been heard; it may be the one that keeps the store."""

_numbers = itertools.count()  # trainings of one process, one after the other, must not hear each other's answers


class Store(Protocol):
    """What is used of torch's key-value stores."""

    def set(self, key: str, value: str) -> None:
        """Let all know ``value``."""
        ...

    def get(self, key: str) -> bytes:
        """What was set; waits for it."""
        ...

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        """Until all are set, or ``RuntimeError``."""
        ...


class Rendezvous:
    """Where the processes of one training meet: the launcher's key-value store, which needs no process group.

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
        self._acts = itertools.count()
        self._store = _store(environment) if environment and self._world > 1 else None

    def run_on_rank_zero(self, action: Callable[[], str]) -> str:
        """What ``action`` returns in the first process, known to all; the others wait for it and do nothing.

        Raises:
            DecathleteError: in every process, if ``action`` raised it in the first.
        """
        if self._store is None:
            return action()
        key = f"{self._key}/{next(self._acts)}"
        if self._rank > 0:
            return self._hear(self._store, key)
        try:
            result = action()
        except BaseException as problem:
            self._tell(self._store, key, {"failed": True, "error": error_content(problem)})
            raise
        self._tell(self._store, key, {"result": result})
        return result

    def _tell(self, store: Store, key: str, content: dict[str, Any]) -> None:
        with suppress(RuntimeError):  # an end of others is told by what comes next; an own error goes first
            store.set(key, json.dumps(content))
            store.wait([f"{key}/heard/{rank}" for rank in range(1, self._world)], FAREWELL)

    def _hear(self, store: Store, key: str) -> str:
        try:
            store.wait([key], PATIENCE)
            content = json.loads(store.get(key))
            store.set(f"{key}/heard/{self._rank}", "")
        except RuntimeError as problem:
            raise _lost(problem) from problem
        if "failed" in content:
            raise error_from(content["error"]) if content["error"] else _lost("it failed")
        return str(content["result"])


def _store(environment: ClusterEnvironment) -> Store:
    """The store by which the process group will be made, too: torchrun's own, else one in the first process."""
    address = environment.main_address
    host = f"[{address}]" if ":" in address else address
    url = f"tcp://{host}:{environment.main_port}"
    rank, world = environment.global_rank(), environment.world_size()
    try:
        store, _, _ = next(rendezvous(url, rank, world, timeout=PATIENCE))
    except RuntimeError as problem:
        raise _lost(problem) from problem
    return cast(Store, store)


def _lost(why: object) -> DecathleteError:
    return DecathleteError(
        f"the training processes lost contact ({str(why).splitlines()[0]})",
        remedy="look for the first process's own message; start them all again, with --resume",
        code="E-TRAINING-PROCESS",
    )
