"""How a U-Net is planned for a topology, and what it costs, against counts by hand."""

from __future__ import annotations

import math

import pytest

from decathlete.errors import PlanError
from decathlete.networks.architectures.unet import UNetArchitecture, plan_unet
from decathlete.networks.unet_cost import feature_map_elements, multiply_adds, stage_voxels
from decathlete.planning.topology import make_topology

TOPOLOGY = make_topology((1, 1, 1), (40, 56, 40))
PLAIN = plan_unet(TOPOLOGY, in_channels=1, out_channels=3)
PATCH = TOPOLOGY.patch_size


def test_plain_and_residual_networks():
    topology = make_topology((1, 1, 1), (128, 128, 128))
    plain = plan_unet(topology, in_channels=2, out_channels=4)
    assert plain.features == (32, 64, 128, 256, 320, 320)
    assert plain.encoder_convs == (2,) * 6
    assert plain.decoder_convs == (2,) * 5
    assert plain.heads == 4  # 5 decoder outputs, the coarsest unsupervised
    residual = plan_unet(topology, in_channels=2, out_channels=4, block="residual", norm="batch")
    assert residual.encoder_convs == (1, 3, 4, 6, 6, 6)
    assert residual.decoder_convs == (1,) * 5
    assert residual.norm == "batch"


def test_a_narrower_network_has_a_lower_ceiling_and_keeps_its_kind():
    topology = make_topology((1, 1), (512, 512))
    wide = plan_unet(topology, in_channels=1, out_channels=3, block="residual", norm="group", negative_slope=0.2)
    assert max(wide.features) == 512
    narrow = UNetArchitecture(wide).with_width(16)
    assert narrow.features[:2] == (16, 32)
    assert max(narrow.features) == 256
    assert (narrow.block, narrow.norm, narrow.negative_slope) == ("residual", "group", 0.2)
    assert UNetArchitecture(wide).with_width(8, finest_only=True).features == (8, *wide.features[1:])


def test_a_patch_too_small_for_a_unet_is_rejected():
    with pytest.raises(PlanError, match="too small"):
        plan_unet(make_topology((1, 1), (4, 4)), in_channels=1, out_channels=2)


def test_voxels_shrink_with_the_strides():
    assert stage_voxels(PLAIN, PATCH) == (89_600, 11_200, 1_400, 175)


def test_feature_maps_of_a_plain_network():
    # per level: 2 encoder, 2 decoder convolutions and the transposed one, 5 maps; the bottleneck 2; the output
    by_hand = 5 * (32 * 89_600 + 64 * 11_200 + 128 * 1_400) + 2 * 256 * 175 + 3 * 89_600
    assert feature_map_elements(PLAIN, PATCH) == by_hand


def test_feature_maps_of_a_residual_network():
    residual = plan_unet(TOPOLOGY, in_channels=1, out_channels=3, block="residual")
    # stem + 1 block of 2; then a projection and 3, 4, 6 blocks of 2; decoder 1 convolution and the transposed one
    by_hand = (3 + 2) * 32 * 89_600 + (7 + 2) * 64 * 11_200 + (9 + 2) * 128 * 1_400 + 13 * 256 * 175 + 3 * 89_600
    assert feature_map_elements(residual, PATCH) == by_hand


def test_multiply_adds_of_a_tiny_network_by_hand():
    topology = make_topology((1, 1), (8, 8))
    network = plan_unet(topology, in_channels=1, out_channels=2, base_features=4)
    encoder = 64 * 9 * (1 * 4 + 4 * 4) + 16 * 9 * (4 * 8 + 8 * 8)
    decoder = 64 * (8 * 4) + 64 * 9 * (8 * 4 + 4 * 4)
    assert multiply_adds(network, (8, 8)) == encoder + decoder + 64 * 4 * 2


def test_multiply_adds_grow_fourfold_with_twice_the_width():
    wide = plan_unet(TOPOLOGY, in_channels=1, out_channels=3, base_features=64)
    ratio = multiply_adds(wide, PATCH) / multiply_adds(PLAIN, PATCH)
    assert math.isclose(ratio, 4, rel_tol=0.05)
