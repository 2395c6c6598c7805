"""On a phantom larger than the patch, a cascade is better than either of its stages alone."""

from __future__ import annotations

import pytest

from benchmark_support import importable


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_the_cascade_is_better_by_two_points(tmp_path, seed):
    with importable("."):
        from cascade import dice_of_configurations

        dice = dice_of_configurations(tmp_path, seed=seed, epochs=16)
    assert dice["3d_cascade"] >= dice["3d_lowres"] + 0.02
    assert dice["3d_cascade"] >= dice["3d"] + 0.02
