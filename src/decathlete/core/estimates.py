"""How much memory and disk space work needs, estimated from sizes alone; nothing is read, and the machine is not asked.

The factors of the host's memory are growths of the peak resident memory between cases of 128 and 200 voxels per edge,
with one and three channels and 3 and 20 classes, rounded up: ``docs/reference/limits.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

FLOAT_BYTES = 4
MEMORY_SHARE = 0.9
"""Share of the free memory that cases may fill; the rest is for all that is not estimated."""
CHECK_BYTES = (4, 4)
"""Checking: bytes per voxel of a file, and in addition those of each channel."""
FINGERPRINT_BYTES = (0, 10)
"""Measuring the fingerprint: bytes per voxel of a file, and in addition those of each channel."""
PREPARE_BYTES = (6, 9)
"""Preparing without resampling: bytes per voxel of a file, and in addition those of each channel."""
RESAMPLE_BYTES, RESAMPLED_BYTES = (3, 15), (0, 7)
"""Preparing with resampling: the same, per voxel of the file and per voxel of the prepared grid."""
MASK_BYTES = 10
"""Adding the masks of a cascade's previous stage: bytes per voxel of the prepared grid and mask."""
POSTPROCESS_BYTES = 9
"""Keeping the largest component of a prediction, once its sums are gone: bytes per voxel of a file, at most."""
SCORE_BYTES = 6
"""Scoring: bytes per voxel of a file."""
READ_LABEL_BYTES, READ_FLOAT_LABEL_BYTES = 4, 17
"""Reading a label map and finding its values: bytes per voxel of a file with integers of 16 bits, or floating-point
numbers."""
CONVERT_BYTES = (4, 8)
"""Writing an image or a label map in another form: bytes per voxel of a file, and in addition those of each channel."""
RENUMBER_BYTES = 16
"""Replacing the values of a label map: bytes per voxel of a file, in addition."""
CEILING_BYTES, CEILING_GRID_BYTES = 16, 10
"""Measuring the ceiling of grids: bytes per voxel of a file, and per voxel of the finest grid."""
LEAST_STORED_SHARE, USUAL_STORED_SHARE = 0.4, 0.7
"""Compressed size of prepared data as a share of their size in memory: the least, and about the mean of six datasets.
Those of a seventh (large grey microscopy) were larger than in memory: 1.08."""
LEAST_CONVERTED_SHARE = 0.1
"""Least size of an image that is written in another form, as a share of the size of its source. (Usual: about 1.)"""
LABEL_BYTES_PER_VOXEL = 0.02
"""Compressed label maps: 0.002 to 0.024 bytes per voxel in five datasets."""


@dataclass(frozen=True, kw_only=True)
class CaseSize:
    """The size of one case.

    Attributes:
        n_voxels: voxels of a channel in the file.
        n_channels: channels of the file.
        n_prepared: voxels of a channel on the prepared grid; 0: not known, or not needed.
        n_masks: channels on the prepared grid that show the prediction of a cascade's previous stage.
    """

    n_voxels: int
    n_channels: int = 1
    n_prepared: int = 0
    n_masks: int = 0


def check_bytes(size: CaseSize) -> int:
    """Return the memory in which a case is read and checked, bytes."""
    return _per_voxel(CHECK_BYTES, size.n_channels) * size.n_voxels


def fingerprint_bytes(size: CaseSize) -> int:
    """Return the memory in which a case is measured for the fingerprint, bytes."""
    return _per_voxel(FINGERPRINT_BYTES, size.n_channels) * size.n_voxels


def prepare_bytes(size: CaseSize) -> int:
    """Return the memory in which a case is read, normalised, resampled and compressed, bytes."""
    masks = MASK_BYTES * size.n_masks * size.n_prepared
    if size.n_prepared == size.n_voxels:
        return _per_voxel(PREPARE_BYTES, size.n_channels) * size.n_voxels + masks
    before, after = (_per_voxel(factors, size.n_channels) for factors in (RESAMPLE_BYTES, RESAMPLED_BYTES))
    return before * size.n_voxels + after * size.n_prepared + masks


def score_bytes(size: CaseSize) -> int:
    """Return the memory in which a prediction is scored against its label map, bytes."""
    return SCORE_BYTES * size.n_voxels


def read_label_bytes(size: CaseSize, *, in_floats: bool = False) -> int:
    """Return the memory in which a label map is read and its values are found, bytes.

    Args:
        in_floats: whether the file contains floating-point numbers.
    """
    return (READ_FLOAT_LABEL_BYTES if in_floats else READ_LABEL_BYTES) * size.n_voxels


def convert_bytes(size: CaseSize, *, renumber: bool = False) -> int:
    """Return the memory in which a file is read and written in another form, bytes.

    Args:
        renumber: whether values of a label map are replaced.
    """
    return (_per_voxel(CONVERT_BYTES, size.n_channels) + RENUMBER_BYTES * renumber) * size.n_voxels


def ceiling_bytes(size: CaseSize) -> int:
    """Return the memory in which a label map is resampled and back, bytes.

    Args:
        size: ``n_prepared`` is that of the finest grid.
    """
    return CEILING_BYTES * size.n_voxels + CEILING_GRID_BYTES * size.n_prepared


def stored_bytes(sizes: Sequence[CaseSize], *, share: float = LEAST_STORED_SHARE) -> int:
    """Return the disk space of prepared cases: float32 channels and a label of one byte, compressed to ``share``."""
    n_bytes = sum((FLOAT_BYTES * (size.n_channels + size.n_masks) + 1) * size.n_prepared for size in sizes)
    return round(share * n_bytes)


def read_for_prediction_bytes(stages: Sequence[CaseSize]) -> int:
    """Return the memory in which an image is prepared for each plan of the models, bytes; the prepared ones are kept.

    Args:
        stages: the image as each plan prepares it, with the plans of the first stages of cascades.
    """
    images = [FLOAT_BYTES * size.n_channels * size.n_prepared for size in stages]
    needed = [prepare_bytes(replace(size, n_masks=0)) for size in stages]  # masks are made in the prediction
    return sum(images) + max(n_bytes - own for n_bytes, own in zip(needed, images, strict=True))


def prediction_bytes(
    stages: Sequence[CaseSize], n_outputs: int, *, sums_limit: int | None, network_bytes: int = 0
) -> int:
    """Return the memory in which a prepared image is predicted, bytes, without that of the weights.

    Args:
        stages: the image as each plan prepares it, with the plans of the first stages of cascades.
        n_outputs: channels of the logits.
        sums_limit: most bytes of the window sums; the others are spilled to disk. ``None``: all stay in memory.
        network_bytes: what a network needs for a batch of windows.
    """
    sums = FLOAT_BYTES * n_outputs * max(size.n_prepared for size in stages)
    held = network_bytes + (sums if sums_limit is None else min(sums, sums_limit))
    n_voxels = stages[0].n_voxels
    afterwards = POSTPROCESS_BYTES * n_voxels
    images = sum(FLOAT_BYTES * (size.n_channels + size.n_masks) * size.n_prepared for size in stages)
    return images + max(held, afterwards) + 2 * n_voxels


def plan_files_bytes(n_voxels: int, n_outputs: int, *, n_plans: int) -> int:
    """Return the disk space of the probabilities of each plan, of which the mean is taken; 0 of a single plan."""
    return FLOAT_BYTES * n_outputs * n_voxels * n_plans if n_plans > 1 else 0


def spilled_bytes(stages: Sequence[CaseSize], n_outputs: int, *, sums_limit: int | None) -> int:
    """Return the disk space of the window sums that do not stay in memory; arguments as :func:`prediction_bytes`."""
    if sums_limit is None:
        return 0
    return max(0, FLOAT_BYTES * n_outputs * max(size.n_prepared for size in stages) - sums_limit)


def predicted_files_bytes(n_voxels: int, n_outputs: int, *, probabilities: bool) -> int:
    """Return the disk space of predictions of ``n_voxels`` in all: label maps, and float32 of each output if asked."""
    return round(LABEL_BYTES_PER_VOXEL * n_voxels) + (FLOAT_BYTES * n_outputs * n_voxels if probabilities else 0)


def batch_bytes(*, batch_size: int, patch_voxels: int, n_channels: int) -> int:
    """Return the memory of a batch that was read ahead, bytes: float32 channels, a label of one byte."""
    return batch_size * patch_voxels * (FLOAT_BYTES * n_channels + 1)


def batches_that_fit(n_ahead: int, bytes_of_batch: int, available_bytes: int) -> int:
    """Return how many batches are read ahead in half of the free memory; at least 1, at most ``n_ahead``.

    >>> batches_that_fit(4, bytes_of_batch=100, available_bytes=500)
    2
    """
    return max(1, min(n_ahead, available_bytes // 2 // max(bytes_of_batch, 1)))


def weights_bytes(n_parameters: int, *, n_networks: int = 1) -> int:
    """Return the size of the weights of networks, float32."""
    return FLOAT_BYTES * n_parameters * n_networks


def workers_that_fit(n_workers: int, case_bytes: Sequence[int], available_bytes: int) -> int:
    """Return how many cases fit into the memory at a time, even if the largest ones meet; at least 1.

    >>> workers_that_fit(4, [100, 30, 30, 30], available_bytes=200)
    3
    """
    largest = sorted(case_bytes, reverse=True)
    room = MEMORY_SHARE * available_bytes
    fitting = [n for n in range(1, n_workers + 1) if sum(largest[:n]) <= room]
    return max(fitting, default=1)


def _per_voxel(factors: tuple[int, int], n_channels: int) -> int:
    fixed, per_channel = factors
    return fixed + per_channel * n_channels
