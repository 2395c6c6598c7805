"""Processors of this machine: which are near a GPU (NVML), which share a core (Linux), and pinning to some."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from decathlete.core.choices import Affinity
from decathlete.core.extras import how_to_install
from decathlete.errors import OptionError
from decathlete.training.distributed.affinity import Processors, Topology, processors_of

CPUS = Path("/sys/devices/system/cpu")
_WORDS = 64
"""Of 64 bits, in NVML's masks: for up to 4096 processors."""

log = logging.getLogger(__name__)


def choose_processors(affinity: Affinity | None, gpus: Sequence[int]) -> tuple[Processors, ...]:
    """Choose the processors of each GPU's process, in the order of ``gpus`` (CUDA's indices); empty: not pinned.

    ``None``, the default, is ``socket_unique_interleaved`` for several GPUs, as far as this machine allows it. One GPU
    has the machine to itself, and in a SLURM job the processors of a task are SLURM's matter.

    Raises:
        OptionError: the mode was asked for and is not possible here.
    """
    if affinity == "disabled" or not gpus:
        return ()
    if affinity is not None:
        return processors_of(read_topology(gpus), affinity)
    if len(gpus) < 2 or SLURMEnvironment.detect():
        return ()
    try:
        return processors_of(read_topology(gpus), "socket_unique_interleaved")
    except OptionError as problem:
        log.info("the training processes are not pinned to processors: %s", problem.problem)
        return ()


def read_topology(gpus: Sequence[int]) -> Topology:
    """Read the topology of this machine.

    Raises:
        OptionError: it cannot be known.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise OptionError("processes can be pinned to processors on Linux only", remedy="use --affinity disabled")
    return Topology(
        near=tuple(_near(gpus)), cores=tuple(physical_cores(CPUS)), allowed=frozenset(os.sched_getaffinity(0))
    )


def _near(gpus: Sequence[int]) -> list[Processors]:
    """Ask NVML for the processors near each GPU, by its UUID: CUDA's numbers follow CUDA_VISIBLE_DEVICES."""
    try:
        import pynvml
    except ImportError:
        raise OptionError(
            "which processors are near a GPU is known to NVML alone, and its Python package is not installed",
            remedy=f"{how_to_install('cuda')}, or use --affinity disabled",
        ) from None
    try:
        pynvml.nvmlInit()
        try:
            uuids = [f"GPU-{torch.cuda.get_device_properties(gpu).uuid}" for gpu in gpus]
            handles = [pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
            return [of_mask(pynvml.nvmlDeviceGetCpuAffinity(handle, _WORDS)) for handle in handles]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as problem:
        raise OptionError(
            f"NVML does not report which processors are near the GPUs ({problem})", remedy="use --affinity disabled"
        ) from problem


def of_mask(words: Sequence[int]) -> Processors:
    """Return the processors whose bits are set in words of 64 bits, lowest first."""
    return frozenset(64 * place + bit for place, word in enumerate(words) for bit in range(64) if word >> bit & 1)


def physical_cores(cpus: Path) -> set[Processors]:
    """Return the hyperthreads of each core, from Linux's ``/sys``; empty where it has no such information."""
    files = cpus.glob("cpu[0-9]*/topology/thread_siblings_list")
    return {of_list(file.read_text(encoding="utf-8")) for file in files}


def of_list(text: str) -> Processors:
    """Parse a list of processors as Linux writes it: ``0-3,8``."""
    ranges = [part.partition("-") for part in text.strip().split(",")]
    return frozenset(n for first, _, last in ranges for n in range(int(first), int(last or first) + 1))


@contextmanager
def pinned_to_cpus(processors: Processors | None) -> Iterator[None]:
    """Pin this thread, and the threads that it starts, to ``processors``; ``None`` changes nothing.

    Torch then uses no more threads than there are processors.
    """
    if not processors:
        yield
        return
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, processors)
    torch.set_num_threads(min(threads, len(processors)))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        torch.set_num_threads(threads)
