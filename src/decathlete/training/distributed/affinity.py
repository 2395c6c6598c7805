"""CPU affinity: the processors of each GPU's training process, as a pure function of the machine's topology.

The modes are those of NVIDIA's nnU-Net for PyTorch. "Processor" is what the system counts, "core" a physical one: one
or more processors (hyperthreads) that share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from decathlete.core.choices import Affinity
from decathlete.errors import OptionError

Processors = frozenset[int]


@dataclass(frozen=True, kw_only=True)
class Topology:
    """The processors near each GPU of one training.

    Attributes:
        near: of each GPU, the processors of its socket.
        cores: the processors of each physical core.
        allowed: those that this process may run on at all (a container or a job may have less than the machine).
    """

    near: tuple[Processors, ...]
    cores: tuple[Processors, ...]
    allowed: Processors


def processors_of(topology: Topology, mode: Affinity) -> tuple[Processors, ...]:
    """Choose the processors of each GPU's process; a GPU without any nearby gets all that are allowed.

    ``socket``: all near. ``single``: the first near, shared by the GPUs there. ``single_unique``: the first core of
    its own, one processor of it. ``socket_unique_interleaved``: the socket's cores are assigned to its GPUs in
    turn; ``socket_unique_continuous``: as many, but neighbouring ones; hyperthreads go with their core.
    ``disabled``: all allowed.

    Raises:
        OptionError: a ``unique`` mode, and fewer cores than GPUs.
    """
    allowed = topology.allowed
    near = [processors & allowed or allowed for processors in topology.near]
    if mode == "disabled":
        return (allowed,) * len(near)
    if mode == "socket":
        return tuple(near)
    if mode == "single":
        return tuple(frozenset({min(processors)}) for processors in near)
    cores = [_cores_in(processors, topology) for processors in near]
    if mode == "single_unique":
        return tuple(frozenset({min(own[0])}) for own in _assign_cores(cores, most=1))
    assigned = _assign_cores(cores)
    if mode == "socket_unique_continuous":
        assigned = _in_blocks(cores, assigned)
    return tuple(frozenset[int]().union(*own) for own in assigned)


def _cores_in(processors: Processors, topology: Topology) -> list[Processors]:
    """List the cores that have any of ``processors``, in order, each with its allowed processors."""
    known = [core & topology.allowed for core in topology.cores if core & processors]
    alone = processors.difference(*known)  # the system does not report their core
    return sorted([*known, *(frozenset({processor}) for processor in alone)], key=min)


def _assign_cores(cores: Sequence[Sequence[Processors]], *, most: int | None = None) -> list[list[Processors]]:
    """Assign cores in rounds: every GPU gets its first free core; the GPU with the fewest choices is the first."""
    order = sorted(range(len(cores)), key=lambda gpu: (len(cores[gpu]), gpu))
    assigned: list[list[Processors]] = [[] for _ in cores]
    taken: set[Processors] = set()
    while most is None or len(assigned[order[0]]) < most:
        before = len(taken)
        for gpu in order:
            free = next((core for core in cores[gpu] if core not in taken), None)
            if free is not None:
                assigned[gpu].append(free)
                taken.add(free)
        if len(taken) == before:
            break
    if not all(assigned):
        raise OptionError(
            f"{len(cores)} GPUs cannot have a core each: {len({c for gpu in cores for c in gpu})} may be used",
            remedy="use --affinity socket or disabled, or let the job use more processors",
        )
    return assigned


def _in_blocks(cores: Sequence[Sequence[Processors]], assigned: list[list[Processors]]) -> list[list[Processors]]:
    """Assign the same numbers of cores; GPUs that choose among the same cores get adjacent ones."""
    blocks = list(assigned)
    for choice in {tuple(c) for c in cores}:
        gpus = [gpu for gpu, c in enumerate(cores) if tuple(c) == choice]
        pool = iter(sorted((core for gpu in gpus for core in assigned[gpu]), key=min))
        for gpu in gpus:
            blocks[gpu] = [next(pool) for _ in assigned[gpu]]
    return blocks
