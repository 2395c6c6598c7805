"""What every step of post-processing promises, built in or from an installed package."""

from __future__ import annotations

import numpy as np
import pytest

from decathlete.inference.output.postprocessing import POSTPROCESSING, PostprocessingSettings

SHAPES = [(9, 10, 11), (1, 12, 12), (1, 1, 1), (5, 1, 7)]


def make_step(name: str):
    component = POSTPROCESSING.resolve(name)
    return POSTPROCESSING.build(component.settings())


def make_masks(shape):
    """Random, full, and with a hole."""
    generator = np.random.default_rng(0)
    full = np.ones(shape, bool)
    hollow = full.copy()
    hollow[tuple(size // 2 for size in shape)] = False
    return [generator.random(shape) < 0.4, full, hollow]


@pytest.mark.parametrize("name", POSTPROCESSING.names())
def test_settings_are_documented_and_name_structures(name: str) -> None:
    settings = POSTPROCESSING.resolve(name).settings
    assert issubclass(settings, PostprocessingSettings)
    assert all(settings.descriptions().values())
    assert POSTPROCESSING.resolve(name).summary


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", POSTPROCESSING.names())
def test_a_mask_becomes_a_mask_and_a_second_time_the_same(name: str, shape: tuple[int, int, int]) -> None:
    step = make_step(name)
    for mask_ZYX in make_masks(shape):
        before_ZYX = mask_ZYX.copy()
        mask_ZYX.flags.writeable = False
        changed_ZYX = step(mask_ZYX, 100.0)
        assert changed_ZYX.shape == shape
        assert changed_ZYX.dtype == bool
        assert np.array_equal(mask_ZYX, before_ZYX)
        assert np.array_equal(step(mask_ZYX, 100.0), changed_ZYX)


@pytest.mark.parametrize("name", POSTPROCESSING.names())
def test_it_does_not_depend_on_the_memory_layout(name: str) -> None:
    step = make_step(name)
    for mask_ZYX in make_masks((9, 10, 11)):
        assert np.array_equal(step(np.asfortranarray(mask_ZYX), 1.0), step(mask_ZYX, 1.0))
