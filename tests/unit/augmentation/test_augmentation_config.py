"""Augmentation settings: presets, defaults, switches, validation, plug-ins, files of version 1."""

from __future__ import annotations

import json
import pickle

import pytest
from pydantic import Field, ValidationError

from decathlete.augmentation.config import DEFAULT_TRANSFORMS, AugmentationConfig
from decathlete.augmentation.transforms import TRANSFORMS, IntensitySettings, IntensityTransform, Interval
from decathlete.core.schema import describe
from decathlete.training.config import TrainConfig

VERSION_1 = """{
 "rotation": {"enabled": true, "probability": 0.3, "degrees": 12.5, "in_plane": true},
 "scaling": {"enabled": false, "probability": 0.2, "between": [0.7, 1.4]},
 "mirroring": {"enabled": true, "probability": 0.5, "axes": [0, 2]},
 "noise": {"enabled": true, "probability": 0.1, "channel_probability": 1.0, "between": [0.0, 0.316]},
 "blur": {"enabled": true, "probability": 0.2, "channel_probability": 0.25, "between": [0.5, 1.0]},
 "brightness": {"enabled": true, "probability": 0.15, "channel_probability": 1.0, "between": [0.75, 1.25]},
 "contrast": {"enabled": true, "probability": 0.15, "channel_probability": 1.0, "between": [0.75, 1.25]},
 "low_resolution": {"enabled": true, "probability": 0.25, "channel_probability": 0.5, "between": [0.5, 1.0]},
 "gamma_inverted": {"enabled": true, "probability": 0.1, "channel_probability": 1.0, "between": [0.7, 1.5]},
 "gamma": {"enabled": true, "probability": 0.3, "channel_probability": 1.0, "between": [0.7, 1.5]}
}"""
"""As files of version 1 hold it."""


@pytest.fixture
def offset():
    """A transform of a plug-in, called like an attribute of every schema."""

    class Offset(IntensityTransform):
        class Settings(IntensitySettings):
            between: Interval = (-0.5, 0.5)
            sign: int = Field(default=1, ge=-1, le=1)

        def __call__(self, rows_RZYX, strength_R, context):
            return rows_RZYX

    with TRANSFORMS.isolated():
        yield TRANSFORMS.register("copy")(Offset)


def test_presets_differ_as_they_say():
    recipe = AugmentationConfig.recipe(3)
    assert recipe["scaling"].between == (0.7, 1.0)
    assert recipe["contrast"].between == (0.65, 1.5)
    assert {recipe[name].probability for name in ("noise", "blur", "brightness")} == {0.15}
    assert {recipe[name].channel_probability for name in ("noise", "blur", "brightness")} == {1}
    assert [name for name in recipe.names if not recipe[name].enabled] == [
        "rotation",
        "low_resolution",
        "gamma_inverted",
        "gamma",
    ]
    none = AugmentationConfig.none()
    assert all(none[name].chance == 0 for name in DEFAULT_TRANSFORMS)


@pytest.mark.parametrize("dims", [2, 3])
def test_mirror_axes_are_those_training_flips(dims):
    assert AugmentationConfig.default(dims).mirror_axes(dims) == tuple(range(dims))
    assert AugmentationConfig().mirror_axes(dims) == tuple(range(dims))
    assert AugmentationConfig.none().mirror_axes(dims) == ()
    assert AugmentationConfig({"mirroring": {"axes": (1,)}}).mirror_axes(dims) == (1,)
    assert AugmentationConfig({"mirroring": {"probability": 0}}).mirror_axes(dims) == ()


def test_mirroring_within_leaves_out_axes():
    config = AugmentationConfig.default(3)
    assert config.mirroring_within(None, 3) == config
    assert config.mirroring_within((0, 1, 2), 3) == config
    assert config.mirroring_within((0, 2), 3).mirror_axes(3) == (0, 2)
    assert not config.mirroring_within((), 3)["mirroring"].enabled


def test_survives_json_and_pickle():
    config = AugmentationConfig.recipe(2)
    assert AugmentationConfig.model_validate_json(config.model_dump_json()) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_partial_mapping_updates_the_defaults():
    config = AugmentationConfig({"gamma": {"probability": 0.5}})
    assert config.names == DEFAULT_TRANSFORMS
    assert config["gamma"].probability == 0.5
    assert config["gamma"].between == AugmentationConfig()["gamma"].between
    assert config.revised(gamma=AugmentationConfig()["gamma"]) == AugmentationConfig()


def test_revised_keeps_the_fields_that_are_not_named():
    config = AugmentationConfig.recipe(3).revised(noise={"probability": 1})
    assert config["noise"] == AugmentationConfig.recipe(3)["noise"].revised(probability=1)
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        config.revised(noise={"probability": 2})


def test_a_file_of_version_1_is_read():
    config = AugmentationConfig.model_validate_json(VERSION_1)
    assert json.loads(config.model_dump_json()) == json.loads(VERSION_1)
    assert (config["rotation"].degrees, config["blur"].channel_probability) == (12.5, 0.25)
    assert config.mirror_axes(3) == (0, 2)
    train = TrainConfig.model_validate({"augmentation": json.loads(VERSION_1)})
    assert train.augmentation == config
    assert TrainConfig.model_validate_json(train.model_dump_json()) == train


def test_a_plug_in_is_added_after_the_defaults(offset):
    config = AugmentationConfig({"copy": {"sign": -1}, "gamma": {"enabled": False}})
    assert config.names == (*DEFAULT_TRANSFORMS, "copy")
    assert config["copy"].sign == -1
    assert AugmentationConfig.model_validate_json(config.model_dump_json()) == config
    assert AugmentationConfig().revised(copy={"probability": 1})["copy"].probability == 1
    with pytest.raises(ValidationError) as caught:
        AugmentationConfig({"copy": {"sign": 3}})
    assert describe(caught.value) == ["copy.sign: Input should be less than or equal to 1"]


def test_settings_that_are_no_transforms_are_rejected():
    with pytest.raises(ValidationError, match="dictionary or instance"):
        AugmentationConfig({"gamma": "strong"})
    with pytest.raises(ValidationError, match="dictionary or instance"):
        AugmentationConfig.model_validate(["gamma"])


def test_all_problems_are_reported_with_their_paths():
    problems = {"noise": {"between": (-0.1, 0.1)}, "blur": {"probability": 1.2}}
    with pytest.raises(ValidationError) as caught:
        TrainConfig.model_validate({"augmentation": problems})
    assert describe(caught.value) == [
        "augmentation.noise.between: must not be negative",
        "augmentation.blur.probability: Input should be less than or equal to 1",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": {"between": (0.3, 0.1)}}, "low to its high"),
        ({"noise": {"between": (0.3, float("inf"))}}, "both finite"),
        ({"blur": {"between": (-0.1, 0.1)}}, "not be negative"),
        ({"gamma": {"between": (0.0, 1.0)}}, "must be positive"),
        ({"scaling": {"between": (0.0, 1.0)}}, "must be positive"),
        ({"low_resolution": {"between": (0.5, 1.5)}}, "must not exceed 1"),
        ({"blur": {"channel_probability": 1.2}}, "less than or equal to 1"),
        ({"mirroring": {"axes": (0, 0)}}, "distinct axes"),
        ({"rotation": {"degrees": 270}}, "less than or equal to 180"),
        ({"rotation": {"between": (0.5, 1.5)}}, "Extra inputs"),
        ({"sharpen": {}}, "no transform called 'sharpen'; choose among blur, brightness"),
        ({"gama": {}}, "did you mean gamma"),
    ],
)
def test_invalid_settings_are_rejected(changes, message):
    with pytest.raises(ValidationError, match=message):
        AugmentationConfig.model_validate(changes)
