"""On a phantom larger than the patch, a cascade is better than either of its stages alone."""

from __future__ import annotations

from statistics import mean

import pytest

from benchmark_support import importable


@pytest.mark.full
def test_over_three_seeds_the_cascade_is_better_by_two_points(tmp_path):
    with importable("."):
        from cascade import dice_of_configurations

        found = [dice_of_configurations(tmp_path / str(seed), seed=seed, epochs=16) for seed in range(3)]
    cascade = mean(dice["3d_cascade"] for dice in found)
    assert cascade >= mean(dice["3d_lowres"] for dice in found) + 0.02
    assert cascade >= mean(dice["3d"] for dice in found) + 0.02
