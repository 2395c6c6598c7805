"""The memory that a training needs, from its plan."""

from __future__ import annotations

import logging
from math import prod

import torch

from decathlete.core import machine
from decathlete.core.estimates import MEMORY_SHARE
from decathlete.core.sizes import format_bytes
from decathlete.inference.windows.memory import default_sums_bytes
from decathlete.planning.memory import training_bytes
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.loop.task import TrainTask

log = logging.getLogger(__name__)

_FLOAT_BYTES = 4


def warn_of_memory(task: TrainTask) -> None:
    """Log a warning if the network, its batch and a validation need more memory than the device has free.

    On CPUs every process of this computer has a batch and a validation of its own in the same memory.
    """
    hardware, plan = task.hardware, task.plan
    needed = training_bytes(plan.network, plan.patch_size, plan.batch_size) + _validation_bytes(task)
    free = machine.free_device_memory_bytes(f"cuda:{hardware.index or 0}") if hardware.kind == "cuda" else None
    place: str = hardware.kind
    if hardware.kind == "cpu":
        needed, free, place = needed * hardware.devices, machine.available_memory_bytes(), "this computer"
    if free is not None and needed > MEMORY_SHARE * free:
        log.warning(
            "the memory of %s may run out: network, batch and validation need about %s, %s are free; "
            "lower --batch-size, or plan for less (preprocess --memory)",
            place,
            format_bytes(needed),
            format_bytes(free),
        )


def _validation_bytes(task: TrainTask) -> int:
    """Return the greatest size of the sums of logits in a validation, bytes: of as many planes as a patch has."""
    if not task.most_val_cases:
        return 0
    store = PreparedStore.open(task.store)
    depth = task.plan.patch_size[0] if task.plan.dims == 3 else 1
    shapes = [store.case(case_id).shape for case_id in task.val_ids]
    n_voxels = max(min(depth, shape[0]) * prod(shape[1:]) for shape in shapes)
    needed = _FLOAT_BYTES * task.plan.labels.n_outputs * n_voxels
    limit = default_sums_bytes(torch.device(task.hardware.kind))
    return needed if limit is None else min(needed, limit)
