"""Which case goes to which worker next, and what happens to the cases of a worker that died."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from decathlete.core.parallel import TaskNeeds

MAX_REASSIGNMENTS = 2
"""How often a case whose worker died is given to another one."""


@dataclass(kw_only=True)
class Member:
    """A worker process that was checked.

    Attributes:
        address: Dask's address.
        worker_id: differs for each process, also where a new one gets the address of one that died.
        resources: what the worker offers, e.g. ``{"GPU": 1}``.
        running: the cases it has now.
        alone: whether its only case must stay alone.
    """

    address: str
    worker_id: str
    n_threads: int
    resources: Mapping[str, float]
    running: set[str] = field(default_factory=set)
    alone: bool = False

    def capacity(self, needs: TaskNeeds, resources: Mapping[str, float]) -> int:
        """Return how many calls with these needs the worker can make at a time."""
        limits = [self.n_threads if needs.at_once is None else min(needs.at_once, self.n_threads)]
        limits += [int(self.resources.get(name, 0.0) // amount) for name, amount in resources.items() if amount > 0]
        return min(limits)


class Dispatch:
    """The cases that wait, and how often each was lost.

    After a worker with several cases has died, each of them is tried alone on a worker: so the case that kills workers
    is found, and the others are not blamed for it again.
    """

    def __init__(self, case_ids: Iterable[str], needs: TaskNeeds, resources: Mapping[str, float]) -> None:
        self._fresh = deque(case_ids)
        self._retries: deque[str] = deque()
        self._losses: Counter[str] = Counter()
        self._needs = needs
        self._resources = resources

    @property
    def is_empty(self) -> bool:
        """Whether no case waits."""
        return not self._fresh and not self._retries

    def assign(self, members: Iterable[Member]) -> list[tuple[str, Member]]:
        """Assign as many waiting cases to workers as they can take now; the members are changed."""
        usable = [member for member in members if member.capacity(self._needs, self._resources) > 0]
        return self._assign_retries(usable) + self._assign_fresh(usable)

    def _assign_retries(self, members: list[Member]) -> list[tuple[str, Member]]:
        """Give each retried case to an idle worker; a busy one that it waits for gets no other cases."""
        assigned = []
        for case_id in list(self._retries):
            if not members:
                break
            member = min(members, key=lambda m: len(m.running))
            members.remove(member)
            if not member.running:
                self._retries.remove(case_id)
                member.running.add(case_id)
                member.alone = True
                assigned.append((case_id, member))
        return assigned

    def _assign_fresh(self, members: list[Member]) -> list[tuple[str, Member]]:
        """Fill the least busy workers first."""
        assigned = []
        while self._fresh:
            free = [m for m in members if not m.alone and len(m.running) < m.capacity(self._needs, self._resources)]
            if not free:
                break
            member = min(free, key=lambda m: len(m.running) / m.capacity(self._needs, self._resources))
            case_id = self._fresh.popleft()
            member.running.add(case_id)
            assigned.append((case_id, member))
        return assigned

    def finish(self, case_id: str, member: Member) -> None:
        """Take a case that is done off its worker."""
        member.running.discard(case_id)
        member.alone = False

    def lose(self, case_id: str, member: Member) -> bool:
        """Take a case off a worker that died; return whether it will be tried again."""
        self.finish(case_id, member)
        self._losses[case_id] += 1
        if self._losses[case_id] > MAX_REASSIGNMENTS:
            return False
        self._retries.append(case_id)
        return True
