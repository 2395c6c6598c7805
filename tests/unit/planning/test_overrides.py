"""Every choice can be set by hand; what depends on it follows; what does not fit is refused by the flag's name."""

from __future__ import annotations

import pytest

from decathlete.errors import OptionError
from decathlete.planning.adaptation import adapt_plan
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import READ_ONLY_FIELDS, override, plan_with
from decathlete.planning.plan import Plan
from decathlete.preprocessing.normalizations.ct import CtSettings
from made_up import made_up_fingerprint, made_up_plan, made_up_spec

PLAN = made_up_plan()


def test_nothing_set_nothing_changed():
    assert override(PLAN, []) is PLAN


def test_patch_size_remakes_the_network():
    plan = override(PLAN, ["patch_size=16,48,32"])
    assert plan.patch_size == (16, 48, 32)
    assert plan.network.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert plan.network.n_stages == len(plan.network.features) == 4
    assert plan.reasons["patch_size"] == "set by --set patch_size=16,48,32"
    assert "4 × 6 × 4" in plan.reasons["network.strides"]


def test_a_shallower_patch_takes_a_shallower_network():
    plan = override(PLAN, ["patch-size=16,16,16"])
    assert plan.network.features == (32, 64, 128)
    assert plan.network.heads == 1


def test_patch_size_with_the_network_set_too_is_taken_as_it_is():
    plan = override(PLAN, ["patch_size=20,20,20", "network.strides=1,1,1;2,2,2;2,2,2;1,1,1"])
    assert plan.patch_size == (20, 20, 20)
    assert plan.network.n_stages == 4


def test_a_patch_that_cannot_be_divided_names_the_flag_and_the_nearest():
    with pytest.raises(OptionError) as caught:
        override(PLAN, ["patch_size=41,56,40"])
    message = str(caught.value)
    assert "--set patch_size=41,56,40" in message
    assert "multiple of 8,8,8" in message
    assert "40,56,40" in message
    assert "48,56,40" in message


def test_target_spacing_changes_median_shape_and_topology():
    plan = override(PLAN, ["target_spacing=3,1,1"])
    assert plan.median_shape == (12, 50, 35)
    assert plan.network.kernels[0] == (1, 3, 3)
    assert plan.network.strides[1] == (1, 2, 2)


def test_2d_spacing_keeps_none_for_slices():
    plan = override(made_up_plan(2), ["target_spacing=none,2,2"])
    assert plan.target_spacing == (None, 2, 2)
    assert plan.median_shape == (36, 25, 18)


@pytest.mark.parametrize(
    ("assignment", "path", "expected"),
    [
        ("batch_size=4", "batch_size", 4),
        ("preprocessing_order=recipe", "preprocessing_order", "recipe"),
        ("network.features=16,32,64,128", "network.features", (16, 32, 64, 128)),
        ("network.norm=batch", "network.norm", "batch"),
        ("network.heads=1", "network.heads", 1),
        ("network.strides=1,1,1;2,2,2;1,2,2;1,2,2", "network.strides", ((1, 1, 1), (2, 2, 2), (1, 2, 2), (1, 2, 2))),
        ("network.strides=[[1,1,1],[2,2,2],[1,2,2],[1,2,2]]", "network.strides.2", (1, 2, 2)),
        ("network.negative_slope=0.1", "network.negative_slope", 0.1),
        ("normalization.0.name=rescale", "normalization.0.component", "rescale"),
        ('normalization.0={"name": "none"}', "normalization.0.component", "none"),
        ("normalization.0.nonzero_only=true", "normalization.0.nonzero_only", True),
        ("resampling.separate_axis=never", "resampling.separate_axis", "never"),
        ('resampling={"image_order": 1}', "resampling.image_order", 1),
    ],
)
def test_fields_of_every_kind(assignment, path, expected):
    value = override(PLAN, [assignment])
    for key in path.split("."):
        value = value[int(key)] if key.isdigit() else getattr(value, key)
    assert value == expected


@pytest.mark.parametrize(
    ("assignment", "part"),
    [
        ("patch_size", "field=value"),
        ("=3", "field=value"),
        ("bach_size=3", "did you mean batch_size?"),
        ("network.foo=1", "choose one of"),
        ("normalization.3.name=ct", "no field 3"),
        ("batch_size.x=1", "batch_size has no fields"),
        ("batch_size=many", "--set batch_size=many"),
        ("batch_size=0", "greater than or equal to 1"),
        ("patch_size=40,56", "needs 3 numbers"),
        ("patch_size=4,4,4", "too small for a U-Net"),
        ("patch_size=40,x,40", "patch_size"),
        ("target_spacing=-1,1,1", "must be positive"),
        ("target_spacing=1,1", "target_spacing"),
        ("network.features=16,32", "one per stage"),
        ("network.in_channels=2", "has 2 input channels"),
        ("axis_order=2,1,0", "everything else depends on it"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(assignment, part):
    with pytest.raises(OptionError, match=part.replace("?", r"\?")) as caught:
        override(PLAN, [assignment])
    assert "--set" in str(caught.value)


@pytest.mark.parametrize("field", ["target_spacing", "patch_size"])
def test_numbers_that_the_network_follows_from_are_set_together(field):
    with pytest.raises(OptionError, match="are set together") as caught:
        override(PLAN, [f"{field}.1=2"])
    assert f"--set {field}=..." in str(caught.value)


@pytest.mark.parametrize("field", sorted(READ_ONLY_FIELDS))
def test_read_only_fields_cannot_be_set(field):
    assert field.partition(".")[0] in {*Plan.model_fields, *Plan.model_computed_fields}
    with pytest.raises(OptionError, match="the field cannot be set"):
        override(PLAN, [f"{field}=1"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("order=recipe", "preprocessing_order"),
        ("trained_on=1", "training_ranges"),
        ("normalization.0.scheme=ct", "normalization.0.name"),
    ],
)
def test_a_renamed_field_names_its_successor(old, new):
    with pytest.raises(OptionError, match="was renamed") as caught:
        override(PLAN, [old])
    assert caught.value.remedy == f"use {new}"


def test_what_the_user_set_is_a_field_of_its_own():
    plan = override(made_up_plan(norm="batch"), ["patch_size=48,64,48"])
    assert plan.user_set == {"network.norm": "--norm batch", "patch_size": "--set patch_size=48,64,48"}
    reworded = plan.revised(reasons={"patch_size": "anything"})
    assert adapt_plan(reworded, ComputeBudget(device="cpu", max_time_s=1)).patch_size == plan.patch_size
    forgotten = plan.revised(user_set={})
    assert adapt_plan(forgotten, ComputeBudget(device="cpu", max_time_s=1)).patch_size != plan.patch_size


def test_a_normalisation_chosen_by_name_is_fitted_where_the_plan_is_made():
    fingerprint = made_up_fingerprint([(36, 50, 35)] * 200, [(1, 1, 1)] * 200, crop_ratio=0.5)
    options = PlanOptions(overrides=("normalization.0.clip_low=-50", "normalization.0.name=ct"))
    plan = plan_with(made_up_spec(), fingerprint, dims=3, options=options)
    assert plan.normalization == (CtSettings(clip_low=-50, clip_high=160, mean=50, std=20),)
    with pytest.raises(OptionError, match="clip_low: Field required"):
        override(PLAN, ["normalization.0.name=ct"])
    with pytest.raises(OptionError, match="did you mean zscore"):
        override(PLAN, ["normalization.0.name=zscor"])


def test_plan_with_takes_axis_order_and_a_budget_leaves_what_was_set():
    fingerprint = made_up_fingerprint([(36, 50, 35)] * 200, [(1, 1, 1)] * 200)
    options = PlanOptions(overrides=("axis_order=1,0,2", "batch_size=5"))
    plan = adapt_plan(plan_with(made_up_spec(), fingerprint, dims=3, options=options), ComputeBudget(device="cpu"))
    assert plan.axis_order == (1, 0, 2)
    assert plan.median_shape == (50, 36, 35)
    assert plan.batch_size == 5
    assert plan.network.features[0] == 16
    with pytest.raises(OptionError, match="must order the axes"):
        plan_with(made_up_spec(), fingerprint, dims=3, options=PlanOptions(overrides=("axis_order=0,0,1",)))


@pytest.mark.parametrize(("text", "axes"), [("2", (2,)), ("0,1", (0, 1)), ("[]", ()), ("none", None)])
def test_one_axis_to_mirror_is_written_like_several(text, axes):
    assert override(PLAN, [f"mirror_axes={text}"]).mirror_axes == axes
