"""The batch that fits into a memory target."""

from __future__ import annotations

import pytest

from decathlete.networks.architectures.unet import plan_unet
from decathlete.planning.memory import (
    batch_that_fits,
    cap_batch,
    memory_fraction,
)
from decathlete.planning.topology import make_topology

TOPOLOGY = make_topology((1, 1, 1), (40, 56, 40))
PLAIN = plan_unet(TOPOLOGY, in_channels=1, out_channels=3)
PATCH = TOPOLOGY.patch_size


def test_memory_is_proportional():
    assert memory_fraction(PLAIN, PATCH, memory_gb=4) == pytest.approx(2 * memory_fraction(PLAIN, PATCH, memory_gb=8))
    assert batch_that_fits(PLAIN, PATCH, memory_gb=16) == pytest.approx(
        2 * batch_that_fits(PLAIN, PATCH, memory_gb=8), abs=1
    )


@pytest.mark.parametrize(("batch", "voxels", "expected"), [(58, 208 * 63_000, 7), (3, 1e12, 3), (50, 10, 2)])
def test_batch_is_at_most_five_percent_of_the_voxels_and_at_least_two(batch, voxels, expected):
    assert cap_batch(batch, dataset_voxels=voxels, patch_size=PATCH) == expected
