"""Applies functions to cases on the workers of a Dask cluster.

Each call is a Dask task that is tied to one worker, which this module chooses. So a case whose worker dies comes back
here, and not to Dask, which would start it again on any worker as often as the scheduler's settings allow.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decathlete.cluster.dispatch import MAX_REASSIGNMENTS, Dispatch, Member
from decathlete.cluster.logs import show
from decathlete.cluster.members import Members
from decathlete.cluster.payload import dumps, loads
from decathlete.cluster.storage import SharedPaths
from decathlete.cluster.worker import Reply, Task, call, run_task
from decathlete.core.parallel import In, Out, Outcome, TaskNeeds
from decathlete.errors import ClusterError

log = logging.getLogger(__name__)

POLL_S = 0.5
"""Seconds after which lost and new workers are noticed."""
FETCH_WITHIN_S = 10.0
"""Seconds in which a result is fetched from its worker, before the worker is looked after."""
NO_WORKERS_S = 300.0
"""Seconds without any worker, after which the work fails: time for a job scheduler to start others."""


@dataclass(frozen=True, kw_only=True)
class _RunningCase:
    """A case that a worker has."""

    case_id: str
    member: Member


class DaskExecutor:
    """A :class:`~decathlete.core.parallel.CaseExecutor`; made by :func:`decathlete.connect_cluster`.

    Args:
        client: Dask's client.
        plugins: modules with components, which the workers import.
        no_workers_s: seconds without any worker after which the work fails.
        clock: returns the time, seconds.
    """

    def __init__(
        self,
        client: Any,
        *,
        plugins: Sequence[str] = (),
        no_workers_s: float = NO_WORKERS_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client = client
        self._plugins = tuple(plugins)
        self._no_workers_s = no_workers_s
        self._clock = clock
        self._members = Members(client)

    def check_workers(self) -> None:
        """Check the versions of all workers.

        Raises:
            ClusterError: some run other versions.
        """
        self._members.check(SharedPaths())

    def require_shared(self, *, reads: Sequence[Path] = (), writes: Sequence[Path] = ()) -> None:
        """See :meth:`decathlete.core.parallel.CaseExecutor.require_shared`. Later workers are checked, too."""
        self._members.check(SharedPaths.of(reads=reads, writes=writes))

    def call_everywhere(self, function: Callable[[], None]) -> None:
        """See :meth:`decathlete.core.parallel.CaseExecutor.call_everywhere`."""
        self.client.run(call, function, on_error="ignore")

    def count_at_once(self, needs: TaskNeeds) -> int:
        """See :meth:`decathlete.core.parallel.CaseExecutor.count_at_once`."""
        members = self._members.current().values()
        resources = _resources_of(needs, members)
        return sum(member.capacity(needs, resources) for member in members)

    def map(
        self, function: Callable[[In], Out], cases: Mapping[str, In], *, needs: TaskNeeds = TaskNeeds()
    ) -> Iterator[Outcome[Out]]:
        """See :meth:`decathlete.core.parallel.CaseExecutor.map`.

        A case whose worker dies is given to another one, at most twice; then it is an outcome with an error.

        Raises:
            ClusterError: no worker offers what the calls need, or all workers were lost.
        """
        return _MapCall(
            self.client,
            self._members,
            function,
            cases,
            needs,
            plugins=self._plugins,
            no_workers_s=self._no_workers_s,
            clock=self._clock,
        ).run()


class _MapCall:
    """One :meth:`DaskExecutor.map`."""

    def __init__(
        self,
        client: Any,
        members: Members,
        function: Callable[[Any], Any],
        cases: Mapping[str, Any],
        needs: TaskNeeds,
        *,
        plugins: Sequence[str],
        no_workers_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._members = members
        self._function = function
        self._cases = cases
        self._needs = needs
        self._plugins = tuple(plugins)
        self._no_workers_s = no_workers_s
        self._clock = clock
        self._topic = f"decathlete-{uuid.uuid4().hex}"
        self._running: dict[Any, _RunningCase] = {}

    def run(self) -> Iterator[Outcome[Any]]:
        """Yield the outcome of each case when it is there."""
        self._resources = self._required_resources()
        dispatch = Dispatch(self._cases, self._needs, self._resources)
        self._client.subscribe_topic(self._topic, _show_event)
        last_usable = self._clock()
        try:
            while self._running or not dispatch.is_empty:
                members = self._members.current()
                if any(member.capacity(self._needs, self._resources) for member in members.values()):
                    last_usable = self._clock()
                elif self._clock() - last_usable > self._no_workers_s:
                    raise _no_workers(self._no_workers_s)
                yield from self._lose_cases_of(members, dispatch)
                for case_id, member in dispatch.assign(members.values()):
                    self._submit(case_id, member)
                yield from self._collect(dispatch)
        finally:
            self._client.unsubscribe_topic(self._topic)
            for future, running in self._running.items():
                future.cancel()
                dispatch.finish(running.case_id, running.member)

    def _required_resources(self) -> Mapping[str, float]:
        """Return what a worker must offer.

        Raises:
            ClusterError: no worker offers it.
        """
        members = self._members.current().values()
        required = _resources_of(self._needs, members)
        if members and not any(member.capacity(self._needs, required) for member in members):
            listed = ",".join(f"{name}={amount:g}" for name, amount in required.items())
            raise ClusterError(
                f"no worker offers {listed}",
                remedy=f'start workers with `dask worker --resources "{listed}"`',
                code="E-CLUSTER-WORKERS",
            )
        return required

    def _submit(self, case_id: str, member: Member) -> None:
        task = Task(
            worker_id=member.worker_id,
            plugins=self._plugins,
            topic=self._topic,
            own_process=self._needs.own_process,
            uses_networks=self._needs.at_once is not None,
        )
        future = self._client.submit(
            run_task,
            dumps(task),
            dumps((case_id, self._function, self._cases[case_id])),
            key=f"decathlete-{uuid.uuid4().hex}",
            workers=[member.address],
            allow_other_workers=False,
            resources=self._resources or None,
            retries=0,
            pure=False,
        )
        self._running[future] = _RunningCase(case_id=case_id, member=member)

    def _collect(self, dispatch: Dispatch) -> Iterator[Outcome[Any]]:
        """Wait a moment for cases that end; yield their outcomes."""
        from distributed import wait

        if not self._running:
            time.sleep(POLL_S)
            return
        try:
            with self._client.as_current():
                done = wait(list(self._running), timeout=POLL_S, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            return
        for future in done:
            running = self._running[future]
            reply = self._reply(future)
            if reply is None:  # the worker died after its work, and took the result with it: see _lose_cases_of
                continue
            del self._running[future]
            if reply.outcome is None:
                self._members.forget(running.member)
                yield from self._lose(running, dispatch)
                continue
            dispatch.finish(running.case_id, running.member)
            for line in reply.logs:
                show(line)
            yield reply.outcome

    def _reply(self, future: Any) -> Reply | None:
        """Return the reply of a task that ended, if it can be fetched."""
        from distributed import CancelledError, KilledWorker

        try:
            reply: Reply = loads(future.result(timeout=FETCH_WITHIN_S))
        except (KilledWorker, CancelledError):
            return Reply(outcome=None)
        except TimeoutError:
            return None
        return reply

    def _lose_cases_of(self, members: Mapping[str, Member], dispatch: Dispatch) -> Iterator[Outcome[Any]]:
        """Take back the cases of workers that left; yield the errors of those that were lost too often."""
        for future, running in list(self._running.items()):
            if members.get(running.member.address) is not running.member:
                del self._running[future]
                future.cancel()
                yield from self._lose(running, dispatch)

    def _lose(self, running: _RunningCase, dispatch: Dispatch) -> Iterator[Outcome[Any]]:
        case_id, address = running.case_id, running.member.address
        if dispatch.lose(case_id, running.member):
            log.warning("worker %s was lost; %s is assigned to another worker", address, case_id)
            return
        cause = ClusterError(
            f"{MAX_REASSIGNMENTS + 1} workers died while they processed it, the last one at {address}",
            remedy="look at the logs of the workers (lack of memory?), and check the files of this case",
            code="E-CLUSTER-CRASH",
        )
        yield Outcome(case_id=case_id, error=str(cause), cause=cause)


def _resources_of(needs: TaskNeeds, members: Iterable[Member]) -> dict[str, float]:
    """Return what a worker must offer for a call: also GPUs, for work on a GPU."""
    required = dict(needs.resources)
    offers_gpus = any(member.resources.get("GPU") for member in members)
    if needs.device.startswith("cuda") or (needs.device == "auto" and offers_gpus):
        required.setdefault("GPU", float(needs.n_devices))
    return required


def _no_workers(seconds: float) -> ClusterError:
    return ClusterError(
        f"all workers were lost, and none has returned for {seconds:g} s",
        remedy="start workers and run the same command again; finished cases are kept",
        code="E-CLUSTER-WORKERS",
    )


def _show_event(event: tuple[float, Any]) -> None:
    """Show a log message of a task in a process of its own."""
    case_id, *line = event[1]
    level, name, message = line
    show((level, name, message), prefix=f"{case_id}: ")
