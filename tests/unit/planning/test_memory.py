"""Feature maps and multiply-adds, against counts by hand and by running the convolutions."""

from __future__ import annotations

import math

import pytest

from decathlete.planning.memory import (
    batch_that_fits,
    cap_batch,
    feature_map_elements,
    memory_fraction,
    multiply_adds,
    stage_voxels,
)
from decathlete.planning.topology import make_network, make_topology

TOPOLOGY = make_topology((1, 1, 1), (40, 56, 40))
PLAIN = make_network(TOPOLOGY, in_channels=1, out_channels=3)
PATCH = TOPOLOGY.patch_size


def test_voxels_shrink_with_the_strides():
    assert stage_voxels(PLAIN, PATCH) == (89_600, 11_200, 1_400, 175)


def test_feature_maps_of_a_plain_network():
    # per level: 2 encoder, 2 decoder convolutions and the transposed one, 5 maps; the bottleneck 2; the output
    by_hand = 5 * (32 * 89_600 + 64 * 11_200 + 128 * 1_400) + 2 * 256 * 175 + 3 * 89_600
    assert feature_map_elements(PLAIN, PATCH) == by_hand


def test_feature_maps_of_a_residual_network():
    residual = make_network(TOPOLOGY, in_channels=1, out_channels=3, block="residual")
    # stem + 1 block of 2; then a projection and 3, 4, 6 blocks of 2; decoder 1 convolution and the transposed one
    by_hand = (3 + 2) * 32 * 89_600 + (7 + 2) * 64 * 11_200 + (9 + 2) * 128 * 1_400 + 13 * 256 * 175 + 3 * 89_600
    assert feature_map_elements(residual, PATCH) == by_hand


def test_memory_is_proportional():
    assert memory_fraction(PLAIN, PATCH, memory_gb=4) == pytest.approx(2 * memory_fraction(PLAIN, PATCH, memory_gb=8))
    assert batch_that_fits(PLAIN, PATCH, memory_gb=16) == pytest.approx(
        2 * batch_that_fits(PLAIN, PATCH, memory_gb=8), abs=1
    )


@pytest.mark.parametrize(("batch", "voxels", "expected"), [(58, 208 * 63_000, 7), (3, 1e12, 3), (50, 10, 2)])
def test_batch_is_at_most_five_percent_of_the_voxels_and_at_least_two(batch, voxels, expected):
    assert cap_batch(batch, dataset_voxels=voxels, patch_size=PATCH) == expected


def test_multiply_adds_of_a_tiny_network_by_hand():
    topology = make_topology((1, 1), (8, 8))
    network = make_network(topology, in_channels=1, out_channels=2, base_features=4)
    encoder = 64 * 9 * (1 * 4 + 4 * 4) + 16 * 9 * (4 * 8 + 8 * 8)
    decoder = 64 * (8 * 4) + 64 * 9 * (8 * 4 + 4 * 4)
    assert multiply_adds(network, (8, 8)) == encoder + decoder + 64 * 4 * 2


def test_multiply_adds_grow_fourfold_with_twice_the_width():
    wide = make_network(TOPOLOGY, in_channels=1, out_channels=3, base_features=64)
    ratio = multiply_adds(wide, PATCH) / multiply_adds(PLAIN, PATCH)
    assert math.isclose(ratio, 4, rel_tol=0.05)
