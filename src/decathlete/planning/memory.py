"""What a network costs: feature maps (memory) and multiply-adds (time), counted from its specification alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from decathlete.core.choices import Block
from decathlete.planning.network_spec import Axes, Dims, NetworkSpec

REFERENCE_GB = 8.0
MIN_BATCH = 2
DATASET_SHARE = 0.05
"""A batch holds at most this share of the dataset's voxels."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What fits into :data:`REFERENCE_GB` of a GPU: nnU-Net v2's calibration of its estimate.

    Attributes:
        elements: of the feature maps of *one* sample ...
        batch_size: ... at which a batch of this size fills the memory.
        guaranteed_batch: the patch is shrunk until this batch fits.
    """

    elements: float
    batch_size: int
    guaranteed_batch: int


REFERENCES: dict[tuple[Block, Dims], Reference] = {
    ("plain", 3): Reference(elements=560e6, batch_size=2, guaranteed_batch=2),
    ("plain", 2): Reference(elements=85e6, batch_size=12, guaranteed_batch=2),
    ("residual", 3): Reference(elements=680e6, batch_size=2, guaranteed_batch=2),
    ("residual", 2): Reference(elements=135e6, batch_size=12, guaranteed_batch=12),
}


def stage_voxels(network: NetworkSpec, patch_size: Axes) -> tuple[int, ...]:
    """Voxels of one feature map at each stage, finest first."""
    sizes, size = [], list(patch_size)
    for stride in network.strides:
        size = [edge // step for edge, step in zip(size, stride, strict=True)]
        sizes.append(math.prod(size))
    return tuple(sizes)


def feature_map_elements(network: NetworkSpec, patch_size: Axes) -> int:
    """Numbers in all convolutions' outputs for one sample: nnU-Net's stand-in for the memory of training.

    Counted are the encoder's and decoder's convolutions (residual: the stem, and a block's projection where width or
    resolution change), the transposed convolutions and the final output, not the deep supervision heads.
    """
    voxels = stage_voxels(network, patch_size)
    total = network.out_channels * voxels[0]
    for stage, (width, count) in enumerate(zip(network.features, voxels, strict=True)):
        total += _encoder_maps(network, stage) * width * count
        if stage < network.n_stages - 1:
            total += (network.decoder_convs[stage] + 1) * width * count
    return total


def _encoder_maps(network: NetworkSpec, stage: int) -> int:
    """Feature maps (of the stage's width) that one encoder stage makes."""
    if network.block == "plain":
        return network.encoder_convs[stage]
    return 2 * network.encoder_convs[stage] + _has_stem(network, stage) + _projects(network, stage)


def _has_stem(network: NetworkSpec, stage: int) -> bool:
    return stage == 0 and network.stem


def _enters(network: NetworkSpec, stage: int) -> int:
    """Channels that a residual stage's first block takes."""
    if _has_stem(network, stage):
        return network.features[0]
    return network.features[stage - 1] if stage else network.in_channels


def _projects(network: NetworkSpec, stage: int) -> bool:
    return network.features[stage] != _enters(network, stage) or max(network.strides[stage]) > 1


def memory_fraction(network: NetworkSpec, patch_size: Axes, *, memory_gb: float) -> float:
    """The share of the memory target that the guaranteed batch takes; it fits at 1 or less."""
    reference = REFERENCES[network.block, network.dims]
    share = reference.guaranteed_batch / reference.batch_size
    return feature_map_elements(network, patch_size) * share / _allowed(reference, memory_gb)


def batch_that_fits(network: NetworkSpec, patch_size: Axes, *, memory_gb: float) -> int:
    """How many samples fill the memory target."""
    reference = REFERENCES[network.block, network.dims]
    ratio = _allowed(reference, memory_gb) / feature_map_elements(network, patch_size)
    return round(ratio * reference.batch_size)


def _allowed(reference: Reference, memory_gb: float) -> float:
    return reference.elements * memory_gb / REFERENCE_GB


def multiply_adds(network: NetworkSpec, patch_size: Axes) -> int:
    """Of all convolutions in one forward pass of one sample, the supervision heads included."""
    voxels = stage_voxels(network, patch_size)
    total = 0
    for stage, count in enumerate(voxels):
        total += _encoder_weights(network, stage) * count
        if stage < network.n_stages - 1:
            total += _decoder_weights(network, stage) * count
        if stage < network.heads:
            total += network.features[stage] * network.out_channels * count
    return total


def _encoder_weights(network: NetworkSpec, stage: int) -> int:
    """Multiply-adds per output voxel of one encoder stage."""
    before = network.features[stage - 1] if stage else network.in_channels
    width, taps = network.features[stage], math.prod(network.kernels[stage])
    if network.block == "plain":
        return _stack(before, width, network.encoder_convs[stage], taps)
    stem = _stack(before, width, 1, taps) if _has_stem(network, stage) else 0
    start = _enters(network, stage)
    projection = start * width if _projects(network, stage) else 0
    return stem + projection + _stack(start, width, 2 * network.encoder_convs[stage], taps)


def _decoder_weights(network: NetworkSpec, stage: int) -> int:
    """Multiply-adds per output voxel of the transposed convolution into a stage and its decoder convolutions."""
    width, below = network.features[stage], network.features[stage + 1]
    taps = math.prod(network.decoder_kernel(stage))
    return below * width + _stack(2 * width, width, network.decoder_convs[stage], taps)


def _stack(before: int, width: int, convs: int, taps: int) -> int:
    return taps * width * (before + (convs - 1) * width)


def cap_batch(batch: int, *, dataset_voxels: float, patch_size: Sequence[int]) -> int:
    """``batch``, at most :data:`DATASET_SHARE` of the dataset's voxels, at least :data:`MIN_BATCH`."""
    most = round(dataset_voxels * DATASET_SHARE / math.prod(patch_size))
    return max(min(batch, most), MIN_BATCH)
