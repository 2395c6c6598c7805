"""The cost of a U-Net, counted from its specification: feature maps (memory) and multiply-adds (time)."""

from __future__ import annotations

import math

from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.network_spec import Axes


def stage_voxels(spec: UNetSpec, patch_size: Axes) -> tuple[int, ...]:
    """Return the voxels of one feature map at each stage, finest first."""
    sizes, size = [], list(patch_size)
    for stride in spec.strides:
        size = [edge // step for edge, step in zip(size, stride, strict=True)]
        sizes.append(math.prod(size))
    return tuple(sizes)


def feature_map_elements(spec: UNetSpec, patch_size: Axes) -> int:
    """Return the elements of all convolutions' outputs for one sample: nnU-Net's estimate of training's memory.

    This includes the convolutions of encoder and decoder (residual: the stem, and a block's projection where width or
    resolution change), the transposed convolutions and the final output, but not the deep supervision heads.
    """
    voxels = stage_voxels(spec, patch_size)
    total = spec.out_channels * voxels[0]
    for stage, (width, count) in enumerate(zip(spec.features, voxels, strict=True)):
        total += _encoder_maps(spec, stage) * width * count
        if stage < spec.n_stages - 1:
            total += (spec.decoder_convs[stage] + 1) * width * count
    return total


def multiply_adds(spec: UNetSpec, patch_size: Axes) -> int:
    """Return the multiply-adds of all convolutions in one forward pass of one sample, with the supervision heads."""
    voxels = stage_voxels(spec, patch_size)
    total = 0
    for stage, count in enumerate(voxels):
        total += _encoder_weights(spec, stage) * count
        if stage < spec.n_stages - 1:
            total += _decoder_weights(spec, stage) * count
        if stage < spec.heads:
            total += spec.features[stage] * spec.out_channels * count
    return total


def _encoder_maps(spec: UNetSpec, stage: int) -> int:
    """Return the number of feature maps, in units of the stage's width, that an encoder stage computes."""
    if spec.block == "plain":
        return spec.encoder_convs[stage]
    return 2 * spec.encoder_convs[stage] + _has_stem(spec, stage) + _has_projection(spec, stage)


def _has_stem(spec: UNetSpec, stage: int) -> bool:
    return stage == 0 and spec.stem


def _block_input_channels(spec: UNetSpec, stage: int) -> int:
    """Return the input channels of a residual stage's first block."""
    if _has_stem(spec, stage):
        return spec.features[0]
    return spec.features[stage - 1] if stage else spec.in_channels


def _has_projection(spec: UNetSpec, stage: int) -> bool:
    return spec.features[stage] != _block_input_channels(spec, stage) or max(spec.strides[stage]) > 1


def _encoder_weights(spec: UNetSpec, stage: int) -> int:
    """Return the multiply-adds per output voxel of one encoder stage."""
    before = spec.features[stage - 1] if stage else spec.in_channels
    width, taps = spec.features[stage], math.prod(spec.kernels[stage])
    if spec.block == "plain":
        return _stack(before, width, spec.encoder_convs[stage], taps)
    stem = _stack(before, width, 1, taps) if _has_stem(spec, stage) else 0
    start = _block_input_channels(spec, stage)
    projection = start * width if _has_projection(spec, stage) else 0
    return stem + projection + _stack(start, width, 2 * spec.encoder_convs[stage], taps)


def _decoder_weights(spec: UNetSpec, stage: int) -> int:
    """Return the multiply-adds per output voxel of the transposed convolution into a stage and its convolutions."""
    width, below = spec.features[stage], spec.features[stage + 1]
    taps = math.prod(spec.decoder_kernel(stage))
    return below * width + _stack(2 * width, width, spec.decoder_convs[stage], taps)


def _stack(before: int, width: int, convs: int, taps: int) -> int:
    return taps * width * (before + (convs - 1) * width)
