"""Connection to a Dask scheduler."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from decathlete.cluster.executor import DaskExecutor
from decathlete.core.extras import import_optional
from decathlete.errors import ClusterError, OptionError

CONNECT_WITHIN_S = 10.0
"""Seconds in which the scheduler must answer."""
WORKERS_WITHIN_S = 30.0
"""Seconds in which at least one worker must be connected to the scheduler."""


@contextmanager
def connect_cluster(
    address: str,
    *,
    plugins: Sequence[str] = (),
    connect_within_s: float = CONNECT_WITHIN_S,
    workers_within_s: float = WORKERS_WITHIN_S,
) -> Iterator[DaskExecutor]:
    """Connect to a Dask cluster, whose workers process cases and folds::

        with decathlete.connect_cluster("tcp://scheduler:8786") as cluster:
            decathlete.check("data/MY_DATASET", workers=cluster)

    Dask runs whatever it is sent, for anyone who reaches the scheduler: use private networks or TLS. With a ``tls://``
    address, the certificates are those of Dask's own configuration.

    Args:
        address: address of the scheduler, ``tcp://HOST:PORT`` or ``tls://HOST:PORT``.
        plugins: modules with components, which the workers import.
        connect_within_s: time limit for the connection, seconds.
        workers_within_s: time limit for the first worker, seconds.

    Raises:
        OptionError: the address is not one of Dask's.
        MissingPackageError: Dask is not installed.
        ClusterError: the scheduler does not answer, it has no workers, or they run other versions.
    """
    if not re.fullmatch(r"(tcp|tls)://.+:\d+", address):
        raise OptionError(
            f"--cluster {address!r} is not the address of a Dask scheduler",
            remedy="write tcp://HOST:PORT or tls://HOST:PORT, as `dask scheduler` prints it",
            code="E-OPTION-SYNTAX",
        )
    client = _open_client(address, connect_within_s)
    try:
        _wait_for_workers(client, address, workers_within_s)
        executor = DaskExecutor(client, plugins=plugins)
        executor.check_workers()
        yield executor
    finally:
        client.close()


def _open_client(address: str, within_s: float) -> Any:
    distributed = import_optional("distributed", title="Dask", extra="cluster")
    try:
        return distributed.Client(address, timeout=within_s, set_as_default=False, name="decathlete")
    except (OSError, TypeError, ValueError, RuntimeError) as problem:
        reason = str(problem) or type(problem).__name__
        raise ClusterError(
            f"the scheduler {address} does not answer within {within_s:g} s ({' '.join(reason.split())})",
            remedy="start `dask scheduler`, and check the address and the network"
            + (", and Dask's TLS settings" if address.startswith("tls") else ""),
            code="E-CLUSTER-CONNECT",
        ) from None


def _wait_for_workers(client: Any, address: str, within_s: float) -> None:
    try:
        client.wait_for_workers(1, timeout=within_s)
    except TimeoutError:
        raise ClusterError(
            f"no worker is connected to the scheduler {address} after {within_s:g} s",
            remedy=f"start workers, e.g. with `dask worker {address}`",
            code="E-CLUSTER-WORKERS",
        ) from None
