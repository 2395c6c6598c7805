"""The memory that a training needs, from its plan."""

from __future__ import annotations

import logging

from decathlete.core import machine
from decathlete.core.estimates import MEMORY_SHARE
from decathlete.core.sizes import format_bytes
from decathlete.planning.memory import training_bytes
from decathlete.training.loop.task import TrainTask

log = logging.getLogger(__name__)


def warn_of_memory(task: TrainTask) -> None:
    """Log a warning if the network with its batch needs more memory than the device has free.

    On CPUs every process of this computer has a batch of its own in the same memory.
    """
    hardware, plan = task.hardware, task.plan
    needed = training_bytes(plan.network, plan.patch_size, plan.batch_size)
    free = machine.free_device_memory_bytes(f"cuda:{hardware.index or 0}") if hardware.kind == "cuda" else None
    place: str = hardware.kind
    if hardware.kind == "cpu":
        needed, free, place = needed * hardware.devices, machine.available_memory_bytes(), "this computer"
    if free is not None and needed > MEMORY_SHARE * free:
        log.warning(
            "the memory of %s may run out: network and batch need about %s, %s are free; "
            "lower --batch-size, or plan for less (preprocess --memory)",
            place,
            format_bytes(needed),
            format_bytes(free),
        )
