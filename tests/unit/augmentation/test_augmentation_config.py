"""Augmentation settings: presets, switches, validation."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from decathlete.augmentation.config import AugmentationConfig, Mirroring


def test_presets_differ_as_they_say():
    recipe = AugmentationConfig.recipe(3)
    assert recipe.scaling.between == (0.7, 1.0)
    assert recipe.contrast.between == (0.65, 1.5)
    assert {recipe.noise.probability, recipe.blur.probability, recipe.brightness.probability} == {0.15}
    assert [n for n in AugmentationConfig.model_fields if not getattr(recipe, n).enabled] == [
        "rotation",
        "low_resolution",
        "gamma_inverted",
        "gamma",
    ]
    none = AugmentationConfig.none()
    assert all(getattr(none, name).chance == 0 for name in AugmentationConfig.model_fields)


@pytest.mark.parametrize("dims", [2, 3])
def test_mirror_axes_are_those_training_flips(dims):
    assert AugmentationConfig.default(dims).mirror_axes(dims) == tuple(range(dims))
    assert AugmentationConfig().mirror_axes(dims) == tuple(range(dims))
    assert AugmentationConfig.none().mirror_axes(dims) == ()
    assert AugmentationConfig(mirroring=Mirroring(axes=(1,))).mirror_axes(dims) == (1,)
    assert AugmentationConfig(mirroring=Mirroring(probability=0)).mirror_axes(dims) == ()


def test_survives_json():
    config = AugmentationConfig.recipe(2)
    assert AugmentationConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": {"between": (0.3, 0.1)}}, "low to its high"),
        ({"noise": {"between": (-0.1, 0.1)}}, "not be negative"),
        ({"gamma": {"between": (0.0, 1.0)}}, "must be positive"),
        ({"scaling": {"between": (0.0, 1.0)}}, "must be positive"),
        ({"low_resolution": {"between": (0.5, 1.5)}}, "must not exceed 1"),
        ({"blur": {"between": (0.5, 1.0), "probability": 1.2}}, "less than or equal to 1"),
        ({"mirroring": {"axes": (0, 0)}}, "distinct axes"),
        ({"rotation": {"degrees": 270}}, "less than or equal to 180"),
        ({"sharpen": {}}, "Extra inputs"),
    ],
)
def test_nonsense_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        AugmentationConfig.model_validate(changes)
