"""Memory of training, estimated from the size of a network's feature maps, and the batch that fits into it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from decathlete.planning.architectures import architecture_of
from decathlete.planning.network_spec import Axes, NetworkSpec

REFERENCE_GB = 8.0
"""GPU memory that the architectures' :class:`~decathlete.planning.architectures.MemoryReference` fills."""
MIN_BATCH = 2
DATASET_SHARE = 0.05
"""Largest share of the dataset's voxels in a batch."""


def memory_fraction(network: NetworkSpec, patch_size: Axes, *, memory_gb: float) -> float:
    """Return the share of the memory target that the guaranteed batch needs; the batch fits if it is at most 1."""
    architecture = architecture_of(network)
    reference = architecture.memory_reference
    share = reference.guaranteed_batch / reference.batch_size
    return architecture.feature_map_elements(patch_size) * share / _allowed(reference.elements, memory_gb)


def batch_that_fits(network: NetworkSpec, patch_size: Axes, *, memory_gb: float) -> int:
    """Return the number of samples that fill the memory target."""
    architecture = architecture_of(network)
    reference = architecture.memory_reference
    ratio = _allowed(reference.elements, memory_gb) / architecture.feature_map_elements(patch_size)
    return round(ratio * reference.batch_size)


def _allowed(elements: float, memory_gb: float) -> float:
    return elements * memory_gb / REFERENCE_GB


def cap_batch(batch: int, *, dataset_voxels: float, patch_size: Sequence[int]) -> int:
    """Return ``batch``, at most :data:`DATASET_SHARE` of the dataset's voxels, at least :data:`MIN_BATCH`."""
    most = round(dataset_voxels * DATASET_SHARE / math.prod(patch_size))
    return max(min(batch, most), MIN_BATCH)
