"""Which processors a GPU's process gets, on machines that are made up."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import pytest

from decathlete.core.choices import Affinity
from decathlete.errors import OptionError
from decathlete.training.distributed.affinity import Topology, processors_of

SOCKET, INTERLEAVED, CONTINUOUS = "socket", "socket_unique_interleaved", "socket_unique_continuous"
UNIQUE = ("single_unique", INTERLEAVED, CONTINUOUS)


def topology(
    near: Iterable[Iterable[int]], cores: Iterable[Iterable[int]], allowed: Iterable[int] | None = None
) -> Topology:
    known = tuple(frozenset(core) for core in cores)
    return Topology(
        near=tuple(frozenset(processors) for processors in near),
        cores=known,
        allowed=frozenset().union(*known) if allowed is None else frozenset(allowed),
    )


def assigned(machine: Topology, mode: Affinity) -> list[list[int]]:
    return [sorted(processors) for processors in processors_of(machine, mode)]


ONE_SOCKET = topology([range(4)] * 2, ([core] for core in range(4)))
# Two sockets of 8 cores with two hyperthreads each (0 and 16, 1 and 17, ...), four GPUs on each.
FIRST, SECOND = {*range(8), *range(16, 24)}, {*range(8, 16), *range(24, 32)}
TWO_SOCKETS = topology([FIRST] * 4 + [SECOND] * 4, ([core, core + 16] for core in range(16)))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("disabled", [[0, 1, 2, 3], [0, 1, 2, 3]]),
        ("socket", [[0, 1, 2, 3], [0, 1, 2, 3]]),
        ("single", [[0], [0]]),
        ("single_unique", [[0], [1]]),
        ("socket_unique_interleaved", [[0, 2], [1, 3]]),
        ("socket_unique_continuous", [[0, 1], [2, 3]]),
    ],
)
def test_one_socket(mode, expected):
    assert assigned(ONE_SOCKET, mode) == expected


@pytest.mark.parametrize(
    ("mode", "second_gpu", "last_gpu"),
    [
        ("socket", sorted(FIRST), sorted(SECOND)),
        ("single", [0], [8]),
        ("single_unique", [1], [11]),
        ("socket_unique_interleaved", [1, 5, 17, 21], [11, 15, 27, 31]),
        ("socket_unique_continuous", [2, 3, 18, 19], [14, 15, 30, 31]),
    ],
)
def test_two_sockets_with_hyperthreads(mode, second_gpu, last_gpu):
    found = assigned(TWO_SOCKETS, mode)
    assert (found[1], found[7]) == (second_gpu, last_gpu)


def test_cores_that_cannot_be_shared_evenly_are_all_used():
    machine = topology([range(7)] * 3, ([core] for core in range(7)))
    assert assigned(machine, INTERLEAVED) == [[0, 3, 6], [1, 4], [2, 5]]
    assert assigned(machine, CONTINUOUS) == [[0, 1, 2], [3, 4], [5, 6]]


def test_a_gpu_that_is_near_only_some_of_anothers_cores_gets_of_those():
    machine = topology([range(8), range(2)], ([core] for core in range(8)))
    for mode in (INTERLEAVED, CONTINUOUS):
        assert assigned(machine, mode) == [[1, 2, 3, 4, 5, 6, 7], [0]]
    assert assigned(machine, "single_unique") == [[1], [0]]


def test_a_container_that_allows_only_some_processors():
    machine = topology([FIRST, FIRST, SECOND], TWO_SOCKETS.cores, allowed=[2, 3, 5, 7, 18, 23])
    assert assigned(machine, SOCKET)[0] == [2, 3, 5, 7, 18, 23]
    # Nothing near the third GPU is allowed: it has the choice of all, and shares them with the others.
    assert assigned(machine, INTERLEAVED) == [[2, 7, 18, 23], [3], [5]]
    assert assigned(machine, CONTINUOUS) == [[2, 3, 18], [5], [7, 23]]
    near_none = topology([SECOND], TWO_SOCKETS.cores, allowed=[4, 20])
    assert assigned(near_none, INTERLEAVED) == [[4, 20]]


def test_processors_whose_cores_are_not_known_are_cores():
    machine = topology([range(4)] * 2, [], allowed=range(4))
    assert assigned(machine, INTERLEAVED) == [[0, 2], [1, 3]]


@pytest.mark.parametrize("mode", UNIQUE)
@pytest.mark.parametrize("machine", [ONE_SOCKET, TWO_SOCKETS])
def test_unique_means_that_no_two_processes_share_a_core(machine, mode):
    core_of = {processor: core for core in machine.cores for processor in core}
    cores = [{core_of[p] for p in processors} for processors in processors_of(machine, mode)]
    assert all(a.isdisjoint(b) for a, b in combinations(cores, 2))
    assert all(p <= near for p, near in zip(processors_of(machine, mode), machine.near, strict=True))


def test_more_gpus_than_cores():
    machine = topology([range(4)] * 3, [[0, 2], [1, 3]])
    for mode in UNIQUE:
        with pytest.raises(OptionError, match="3 GPUs cannot have a core each: 2"):
            processors_of(machine, mode)
    assert assigned(machine, "single") == [[0]] * 3
    assert assigned(machine, SOCKET) == [[0, 1, 2, 3]] * 3
