"""What a MedNeXt costs: the outputs of its convolutions, and its multiply-adds. It does not need torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from decathlete.networks.mednext_spec import MedNeXtSpec
from decathlete.planning.network_spec import Axes


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a part of the network, for one sample.

    Attributes:
        elements: of the outputs of all its convolutions.
        multiply_adds: of all its convolutions.
    """

    elements: int
    multiply_adds: int


def feature_map_elements(spec: MedNeXtSpec, patch_size: Axes) -> int:
    """Return the elements of all convolutions' outputs for one sample, without the coarser heads."""
    return sum(part.elements for part in _parts(spec, patch_size, heads=1))


def multiply_adds(spec: MedNeXtSpec, patch_size: Axes) -> int:
    """Return the multiply-adds of one forward pass of one sample, with all heads."""
    return sum(part.multiply_adds for part in _parts(spec, patch_size, heads=spec.heads))


def _parts(spec: MedNeXtSpec, patch_size: Axes, *, heads: int) -> Iterator[Cost]:
    voxels = _voxels(spec, patch_size)
    yield Cost(
        elements=spec.features[0] * voxels[0], multiply_adds=spec.in_channels * spec.features[0] * voxels[0]
    )  # stem
    for stage, count in enumerate(voxels):
        expansion = spec.encoder_expansion[stage]
        if stage:
            yield _down(spec, stage, count, expansion)
        for _ in range(spec.encoder_blocks[stage]):
            yield _block(spec, stage, count, expansion)
    for stage, count in enumerate(voxels[:-1]):
        yield _up(spec, stage, count, voxels[stage + 1], spec.decoder_expansion[stage])
        for _ in range(spec.decoder_blocks[stage]):
            yield _block(spec, stage, count, spec.decoder_expansion[stage])
        if stage < heads:
            yield Cost(
                elements=spec.out_channels * count, multiply_adds=spec.features[stage] * spec.out_channels * count
            )


def _voxels(spec: MedNeXtSpec, patch_size: Axes) -> list[int]:
    size, voxels = list(patch_size), []
    for stride in spec.strides:
        size = [edge // step for edge, step in zip(size, stride, strict=True)]
        voxels.append(math.prod(size))
    return voxels


def _block(spec: MedNeXtSpec, stage: int, count: int, expansion: int) -> Cost:
    width, taps = spec.features[stage], math.prod(spec.kernels[stage])
    inner = expansion * width
    return Cost(elements=(2 * width + inner) * count, multiply_adds=(width * taps + 2 * width * inner) * count)


def _down(spec: MedNeXtSpec, stage: int, count: int, expansion: int) -> Cost:
    before, after, taps = spec.features[stage - 1], spec.features[stage], math.prod(spec.kernels[stage])
    inner = expansion * before
    weights = before * taps + before * inner + inner * after + before * after
    return Cost(elements=(before + inner + 2 * after) * count, multiply_adds=weights * count)


def _up(spec: MedNeXtSpec, stage: int, count: int, below_count: int, expansion: int) -> Cost:
    below, after, taps = spec.features[stage + 1], spec.features[stage], math.prod(spec.kernels[stage + 1])
    inner = expansion * below
    transposed = (below * taps + below * after) * below_count  # each input voxel is spread over the kernel
    return Cost(
        elements=(below + inner + 2 * after) * count, multiply_adds=transposed + (below * inner + inner * after) * count
    )
