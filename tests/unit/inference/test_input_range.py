import numpy as np
import pytest

from decathlete.core.geometry import Geometry
from decathlete.inference.input_range import channel_means, copied_channel_warnings, input_range_warnings
from decathlete.io.images import Image
from decathlete.planning.plan import Range, TrainingRanges
from decathlete.preprocessing.prepare import prepare
from factories import make_test_plan

PLAN = make_test_plan(
    training_ranges=TrainingRanges(
        spacing=(Range(low=2, high=3), Range(low=1, high=1), Range(low=1, high=1)),
        size=(Range(low=20, high=30), Range(low=10, high=12), Range(low=10, high=12)),
        intensity=(Range(low=100, high=120),),
    )
)


def warnings(shape=(10, 11, 11), spacing=(2.5, 1.0, 1.0), intensity=110.0):
    image = np.full((1, *shape), intensity, np.float32)
    image[0, 0, 0, 0] += 1
    given = Image(array_CZYX=image, geometry=Geometry.plain(shape, spacing_ZYX=spacing))
    restoration = prepare(given, PLAN).restoration
    return input_range_warnings(channel_means(given, restoration), restoration, PLAN)


def test_silent_for_what_training_saw():
    assert warnings() == ()


def test_silent_within_tolerance():
    assert warnings(shape=(13, 11, 11), intensity=128.0) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spacing": (5.0, 1.0, 1.0), "shape": (5, 11, 11)}, "spacing along axis 0 is 5 mm; .* 2 to 3 mm"),
        ({"shape": (10, 11, 40)}, "size along axis 2 is 40 mm; .* 10 to 12 mm"),
        ({"intensity": 400.0}, "mean intensity of channel 'channel0' is 400; .* 100 to 120"),
        ({"intensity": -400.0}, "mean intensity"),
    ],
)
def test_says_what_departs(changes, words):
    import re

    found = warnings(**changes)
    assert len(found) == 1
    assert re.search(words, found[0])


def test_a_copied_channel_is_named_and_an_empty_one_is_not():
    image_CZYX = np.random.default_rng(0).normal(size=(4, 3, 4, 5)).astype(np.float32)
    image_CZYX[2] = image_CZYX[0]
    names = ("T1", "T2", "FLAIR", "T1c")

    def said(array_CZYX, geometry=Geometry.plain((3, 4, 5))):
        image = Image(array_CZYX=array_CZYX, geometry=geometry)
        return copied_channel_warnings(image, array_CZYX.mean(axis=(1, 2, 3)).tolist(), names)

    (warning,) = said(image_CZYX)
    assert "'T1' and 'FLAIR' are equal" in warning
    assert not said(image_CZYX, Geometry.pixels((3, 4, 5))), "a grey picture has three equal channels"
    assert not said(np.zeros_like(image_CZYX)), "missing sequences are often filled with zeros"
    shuffled_CZYX = image_CZYX.copy()
    shuffled_CZYX[2, 0, 0] = image_CZYX[0, 0, 0, ::-1]
    assert not said(shuffled_CZYX), "the same mean is no copy"
