"""``--cluster`` and ``--workers``: where cases are processed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from decathlete.cli import options as o
from decathlete.cli.precedence import explicit_options
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.core.parallel import CaseExecutor, Workers


@dataclass(frozen=True, kw_only=True)
class WorkerArguments:
    """Options of the threads or the cluster that processes cases."""

    workers: o.Workers = 2
    cluster: o.Cluster = None

    @contextmanager
    def open(self, context: typer.Context) -> Iterator[Workers]:
        """Yield the number of threads, or the executor of a cluster, which is closed at the end.

        Raises:
            OptionError: both options are set, or the address is not one of Dask's.
            ClusterError: the cluster cannot be reached or used.
        """
        if self.cluster is not None and explicit_options(context).get("workers") is not None:
            raise OptionError(
                "--workers has no effect with --cluster: each Dask worker processes as many cases as it has threads",
                remedy="leave out --workers, and set `dask worker --nthreads`",
                code="E-OPTION-CONFLICT",
            )
        with open_cluster(context, self.cluster) as executor:
            yield self.workers if executor is None else executor


@contextmanager
def open_cluster(context: typer.Context, cluster: str | None) -> Iterator[CaseExecutor | None]:
    """Yield the executor of a cluster, or ``None`` without ``--cluster``.

    Raises:
        OptionError: the address is not one of Dask's.
        ClusterError: the cluster cannot be reached or used.
    """
    if cluster is None:
        yield None
        return
    from decathlete.cluster.connection import connect_cluster

    with connect_cluster(cluster, plugins=context.params.get("plugin") or ()) as executor:
        yield executor
