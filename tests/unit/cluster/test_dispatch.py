"""Every case is processed or fails after its third loss, whatever workers do, and no worker gets too much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from decathlete.cluster.dispatch import MAX_REASSIGNMENTS, Dispatch, Member
from decathlete.core.parallel import TaskNeeds


def member(name: str, n_threads: int = 1, **resources: float) -> Member:
    return Member(address=name, worker_id=name, n_threads=n_threads, resources=resources)


def simulate(n_cases: int, threads: list[int], killers: set[str], picks: st.DataObject) -> tuple[set[str], set[str]]:
    """Run all cases: a worker with a killer dies and comes back; return the finished and the failed cases."""
    dispatch = Dispatch([str(i) for i in range(n_cases)], TaskNeeds(), {})
    members = [member(f"w{i}", n) for i, n in enumerate(threads)]
    finished, failed = set(), set()
    while not dispatch.is_empty or any(m.running for m in members):
        dispatch.assign(members)
        for m in members:
            assert len(m.running) <= (1 if m.alone else m.n_threads)
        busy = [i for i, m in enumerate(members) if m.running]
        i = picks.draw(st.sampled_from(busy))
        case_id = picks.draw(st.sampled_from(sorted(members[i].running)))
        if case_id in killers:
            for lost in sorted(members[i].running):
                if not dispatch.lose(lost, members[i]):
                    failed.add(lost)
            members[i] = member(f"{members[i].address}'", threads[i])
        else:
            dispatch.finish(case_id, members[i])
            finished.add(case_id)
    return finished, failed


@given(
    n_cases=st.integers(0, 12),
    threads=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    killers=st.sets(st.integers(0, 11).map(str), max_size=1),
    picks=st.data(),
)
def test_only_the_case_that_kills_workers_fails(n_cases, threads, killers, picks) -> None:
    cases = {str(i) for i in range(n_cases)}
    finished, failed = simulate(n_cases, threads, killers, picks)
    assert failed == killers & cases
    assert finished == cases - killers


def test_a_case_is_given_to_another_worker_twice() -> None:
    dispatch, w = Dispatch(["a"], TaskNeeds(), {}), member("w")
    kept = []
    while assigned := dispatch.assign([w]):
        kept.append(dispatch.lose(assigned[0][0], w))
    assert kept == [True] * MAX_REASSIGNMENTS + [False]
    assert MAX_REASSIGNMENTS == 2


def test_a_retried_case_waits_for_an_idle_worker_that_gets_nothing_else() -> None:
    dispatch, w = Dispatch(["a", "b", "c"], TaskNeeds(), {}), member("w", 2)
    dispatch.assign([w])
    dispatch.lose("a", w)
    assert dispatch.assign([w]) == [], "b still runs"
    dispatch.finish("b", w)
    assert dispatch.assign([w]) == [("a", w)]
    assert dispatch.assign([w]) == []
    dispatch.finish("a", w)
    assert dispatch.assign([w]) == [("c", w)]


def test_threads_needs_and_resources_limit_what_a_worker_gets() -> None:
    w = member("w", 8, GPU=2)
    assert w.capacity(TaskNeeds(), {}) == 8
    assert w.capacity(TaskNeeds(at_once=3), {}) == 3
    assert w.capacity(TaskNeeds(), {"GPU": 1}) == 2
    assert w.capacity(TaskNeeds(), {"GPU": 2, "MEMORY": 1}) == 0
