"""What every normalisation promises, built in or of a plug-in."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from decathlete.planning.fingerprint import IntensityStatistics
from decathlete.planning.normalizations import NORMALIZATIONS, AnyNormalization, ChannelStatistics, Normalization
from decathlete.preprocessing.normalize import object_mask

STATISTICS = IntensityStatistics(
    mean=50, std=20, median=48, minimum=-300, maximum=900, percentile_00_5=-120, percentile_99_5=160
)
CHANNELS = [ChannelStatistics(intensity=STATISTICS, crop_ratio=ratio) for ratio in (1.0, 0.5)]


@pytest.fixture(params=[(name, channel) for name in NORMALIZATIONS.names() for channel in CHANNELS], ids=str)
def normalization(request: pytest.FixtureRequest) -> Normalization:
    name, channel = request.param
    return NORMALIZATIONS.build(NORMALIZATIONS.resolve(name).cls.fit(channel))


def volume() -> np.ndarray:
    channel = np.random.default_rng(1).normal(40, 60, (6, 7, 8)).astype(np.float32)
    channel[:2] = 0
    return channel


def applied(normalization: Normalization, channel: np.ndarray) -> np.ndarray:
    return normalization.apply(channel, object_mask(channel[None]) if normalization.needs_mask else None)


def test_the_result_is_finite_and_of_the_same_shape(normalization):
    out = applied(normalization, volume())
    assert (out.shape, out.dtype) == ((6, 7, 8), np.float32)
    assert np.isfinite(out).all()


def test_the_input_is_left_alone_and_the_result_repeats(normalization):
    channel = volume()
    first = applied(normalization, channel).copy()
    assert np.array_equal(channel, volume())
    assert np.array_equal(applied(normalization, channel), first)


@pytest.mark.parametrize("value", [0.0, 7.0, -1000.0, 1.7e6])
def test_a_constant_image_stays_finite_and_constant(normalization, value):
    out = applied(normalization, np.full((3, 4, 5), value, np.float32))
    assert np.isfinite(out).all()
    assert np.ptp(out) == 0


def test_brighter_stays_brighter(normalization):
    channel = np.abs(volume()) + 1  # nowhere 0: all of it is the object
    order = np.argsort(channel, axis=None)
    assert (np.diff(applied(normalization, channel).ravel()[order]) >= -1e-6).all()


def test_clipped_intensities_are_not_told_apart(normalization):
    if normalization.clip_range is None:
        return
    low, high = normalization.clip_range
    assert low < high
    ends = np.array([low - 100, low, high, high + 100], np.float32).reshape(1, 1, 4)
    first, second, third, fourth = applied(normalization, ends).ravel()
    assert first == second < third == fourth


def test_settings_survive_their_file_and_are_described(normalization):
    adapter = TypeAdapter(AnyNormalization)
    assert adapter.validate_json(adapter.dump_json(normalization.settings)) == normalization.settings
    assert normalization.settings.to_config()["name"] == normalization.settings.component
    assert normalization.describe()
