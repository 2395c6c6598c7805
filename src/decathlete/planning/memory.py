"""Memory of training, estimated from the size of a network's feature maps, and the batch that fits into it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from decathlete.planning.architectures import MemoryReference, architecture_of
from decathlete.planning.network_spec import Axes, NetworkSpec

MIN_BATCH = 2
DATASET_SHARE = 0.05
"""Largest share of the dataset's voxels in a batch, unless an architecture has another one."""


def memory_fraction(
    network: NetworkSpec, patch_size: Axes, *, memory_gb: float, reference: MemoryReference | None = None
) -> float:
    """Return the share of the memory target that the guaranteed batch needs; the batch fits if it is at most 1.

    Args:
        reference: calibration of the estimate; ``None``: the architecture's own.
    """
    architecture = architecture_of(network)
    reference = reference or architecture.memory_reference
    share = reference.guaranteed_batch / reference.batch_size
    return architecture.feature_map_elements(patch_size) * share / _allowed(reference, memory_gb)


def batch_that_fits(
    network: NetworkSpec, patch_size: Axes, *, memory_gb: float, reference: MemoryReference | None = None
) -> int:
    """Return the number of samples that fill the memory target; ``reference`` as in :func:`memory_fraction`."""
    architecture = architecture_of(network)
    reference = reference or architecture.memory_reference
    ratio = _allowed(reference, memory_gb) / architecture.feature_map_elements(patch_size)
    return round(ratio * reference.batch_size)


def training_bytes(network: NetworkSpec, patch_size: Axes, batch_size: int) -> int:
    """Return the memory in which a network is trained with a batch, bytes, by the calibration for GPUs."""
    architecture = architecture_of(network)
    reference = architecture.memory_reference
    share = architecture.feature_map_elements(patch_size) * batch_size / (reference.elements * reference.batch_size)
    return round(share * reference.memory_gb * 1e9)


def _allowed(reference: MemoryReference, memory_gb: float) -> float:
    return reference.elements * memory_gb / reference.memory_gb


def cap_batch(
    batch: int, *, dataset_voxels: float, patch_size: Sequence[int], dataset_share: float = DATASET_SHARE
) -> int:
    """Return ``batch``, at most ``dataset_share`` of the dataset's voxels, at least :data:`MIN_BATCH`."""
    most = round(dataset_voxels * dataset_share / math.prod(patch_size))
    return max(min(batch, most), MIN_BATCH)
