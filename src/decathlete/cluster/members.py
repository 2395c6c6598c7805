"""The workers of a cluster: which are there, which are checked, and which may be used."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from decathlete.cluster.dispatch import Member
from decathlete.cluster.storage import VISIBLE_WITHIN_S, SharedPaths, probe_path, problem_of_replies
from decathlete.cluster.versions import differences, own_versions
from decathlete.cluster.worker import inspect_worker, remove_replies
from decathlete.errors import ClusterError

log = logging.getLogger(__name__)


class Members:
    """The checked workers of a cluster.

    Args:
        client: Dask's client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._members: dict[str, Member] = {}
        self._rejected: set[str] = set()
        self._shared = SharedPaths()

    def current(self) -> dict[str, Member]:
        """Return the workers that are connected now, by address; new ones that fail the checks are left out."""
        known = self._ask_scheduler()
        self._members = {address: member for address, member in self._members.items() if address in known}
        self._rejected &= set(known)
        new = {a: info for a, info in known.items() if a not in self._members and a not in self._rejected}
        for address, problem in self._admit(new).items():
            self._rejected.add(address)
            log.warning("the worker %s is not used: %s", address, problem.problem)
        return self._members

    def forget(self, member: Member) -> None:
        """Forget a worker whose process was replaced; it is checked again."""
        if self._members.get(member.address) is member:
            del self._members[member.address]

    def check(self, shared: SharedPaths) -> None:
        """Check all workers: their versions, and whether they see the same files.

        Raises:
            ClusterError: some cannot be used; all of them are named.
        """
        self._shared = shared
        self._members.clear()
        self._rejected.clear()
        problems = self._admit(self._ask_scheduler())
        if problems:
            listed = "; ".join(f"worker {address}: {problem.problem}" for address, problem in problems.items())
            first = next(iter(problems.values()))
            raise ClusterError(listed, remedy=first.remedy, code=first.code)

    def _ask_scheduler(self) -> Mapping[str, Mapping[str, Any]]:
        try:
            workers: Mapping[str, Mapping[str, Any]] = self._client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, TimeoutError) as problem:
            raise ClusterError(
                f"the connection to the scheduler was lost ({problem or type(problem).__name__})",
                remedy="start the scheduler and workers, and run the same command again; finished cases are kept",
                code="E-CLUSTER-CONNECT",
            ) from problem
        return {address: info for address, info in workers.items() if info["status"] in ("running", "paused")}

    def _admit(self, new: Mapping[str, Mapping[str, Any]]) -> dict[str, ClusterError]:
        """Check new workers and add those that pass; return the errors of the others by address."""
        if not new:
            return {}
        problems = {}
        for address, (facts, problem) in self._inspect(list(new)).items():
            if problem is not None:
                problems[address] = problem
            elif facts is not None:
                info = new[address]
                self._members[address] = Member(
                    address=address,
                    worker_id=facts["id"],
                    n_threads=info["nthreads"],
                    resources=info["resources"],
                )
        return problems

    def _inspect(self, addresses: Sequence[str]) -> dict[str, tuple[dict[str, Any] | None, ClusterError | None]]:
        """Return facts or error of each worker; neither, if it has left meanwhile."""
        token, writes = uuid.uuid4().hex[:8], self._shared.writes
        request = {"token": token, "reads": self._shared.stamps(), "writes": writes}
        with _probes(writes, token):
            replies = self._client.run(inspect_worker, request, workers=addresses, on_error="return")
            judged = {address: _judge(reply, writes, token) for address, reply in replies.items()}
            if writes:
                self._client.run(remove_replies, writes, token, workers=addresses, on_error="ignore")
        return judged


@contextmanager
def _probes(writes: Sequence[str], token: str) -> Iterator[None]:
    paths = [probe_path(folder, token) for folder in writes]
    try:
        for path in paths:
            path.touch()
        yield
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _judge(reply: Any, writes: Sequence[str], token: str) -> tuple[dict[str, Any] | None, ClusterError | None]:
    if isinstance(reply, OSError):
        return None, None  # it left, or died
    if isinstance(reply, BaseException):
        return None, _version_error(f"cannot run this version of Decathlete ({type(reply).__name__}: {reply})")
    fatal, rounding = differences(own_versions(), reply["versions"])
    if fatal:
        return None, _version_error(f"has other versions: {', '.join(fatal)}")
    problems = reply["problems"] or [problem_of_replies(writes, token, reply["id"], within_s=VISIBLE_WITHIN_S)]
    if problems[0] is not None:
        return None, ClusterError(
            f"does not share the storage of the command: {'; '.join(problems)}",
            remedy="use folders on storage that is mounted under the same path on every machine",
            code="E-CLUSTER-STORAGE",
        )
    if rounding:
        log.warning("a worker has other packages, so that results may differ by rounding: %s", ", ".join(rounding))
    return reply, None


def _version_error(problem: str) -> ClusterError:
    return ClusterError(
        problem, remedy="start the workers in the same environment as the command", code="E-CLUSTER-VERSION"
    )
