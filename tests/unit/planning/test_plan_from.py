"""A plan with another dataset's decisions: what is reused by name, what stays, and what contradicts it."""

from __future__ import annotations

import pytest

from decathlete.core.labels import LabelSet
from decathlete.errors import OptionError, PlanError
from decathlete.planning.adaptation import adapt_plan
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.normalizations import NORMALIZATIONS
from decathlete.planning.options import PlanOptions
from decathlete.planning.plan_from import options_with, plan_from
from factories import make_test_plan
from made_up import made_up_fingerprint, made_up_spec

CT = NORMALIZATIONS.settings({"name": "ct", "mean": 90.0, "std": 30.0, "clip_low": -50.0, "clip_high": 200.0})


def source_plan(dims=3, **changes):
    """Of a model with the channels CT and PET, whose axes were ordered otherwise, with a spacing of its own."""
    fields = {
        "channels": ("CT", "PET"),
        "n_channels": 2,
        "normalization": (CT, NORMALIZATIONS.settings("none")),
        "axis_order": (2, 0, 1),
        "target_spacing": (None if dims == 2 else 4.0, 1.5, 1.25),
        "batch_size": 3,
        "labels": LabelSet.from_names(["liver", "tumour", "vessel"]),
    }
    return make_test_plan(dims, **(fields | changes))


def derived(source, *, channels=("MRI", "CT"), dims=3, **options):
    fingerprint = made_up_fingerprint([(60, 70, 80)] * 5, [(2, 1, 1)] * 5, n_channels=len(channels))
    return plan_from(
        source,
        made_up_spec(channels),
        fingerprint,
        configuration="2d" if dims == 2 else "3d",
        options=options_with(source, PlanOptions(**options)),
        origin="model",
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_grid_patch_and_network_are_those_of_the_model(dims):
    source = source_plan(dims)
    plan = derived(source, dims=dims).plan
    for field in ("axis_order", "target_spacing", "patch_size", "batch_size", "resampling", "orientation"):
        assert getattr(plan, field) == getattr(source, field), field
    assert plan.network == source.network.revised(in_channels=2, out_channels=3)
    assert plan.median_shape[1:] == (60 * 2 / 1.5 // 1, 70 / 1.25)  # this dataset's, on the model's grid
    assert [c.name for c in plan.labels.foreground] == ["c1", "c2"]
    assert plan.mirror_axes is None


def test_normalisation_is_reused_by_the_name_of_the_channel():
    result = derived(source_plan())
    assert result.plan.normalization[1] == CT
    assert result.plan.normalization[0].component == "zscore"
    assert "normalisation: CT reused; MRI planned for these images" in result.lines[1]
    assert "PET of the model not used" in result.lines[1]


def test_no_channel_in_common_plans_all_normalisations():
    result = derived(source_plan(), channels=("T1", "T2"))
    assert {settings.component for settings in result.plan.normalization} == {"zscore"}
    assert "reused" not in result.lines[1]
    assert not any(field.startswith("normalization") for field in result.plan.user_set)


def test_options_of_the_user_have_priority_and_are_listed():
    result = derived(source_plan(), overrides=("patch_size=8,16,24", "target_spacing=3,1.5,1.25"))
    assert result.plan.patch_size == (8, 16, 24)
    assert result.plan.target_spacing == (3, 1.5, 1.25)
    assert result.plan.network.features == (4, 8)
    assert "patch 8" not in result.lines[0]
    assert "patch_size, target_spacing set by --set" in result.lines[2]


def test_a_short_training_on_a_cpu_leaves_the_decisions_as_they_are():
    plan = derived(source_plan()).plan
    adapted = adapt_plan(plan, ComputeBudget(device="cpu", max_time_s=60))
    assert (adapted.network, adapted.patch_size, adapted.batch_size) == (plan.network, plan.patch_size, 3)


def test_the_steps_before_the_network_follow_the_model():
    source = source_plan(orientation="stored", preprocessing_order="recipe", foreground_channel=True,
                         network=source_plan().network.revised(in_channels=3))  # fmt: skip
    options = options_with(source, PlanOptions())
    assert (options.orientation, options.preprocessing_order, options.foreground_channel) == ("stored", "recipe", True)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"network": "resenc-m"}, "--network resenc-m"),
        ({"depth": 3}, "--depth 3"),
        ({"memory_gb": 4.0}, "--memory"),
        ({"preset": "recipe"}, "--preset"),
        ({"orientation": "stored"}, "--orientation stored"),
        ({"preprocessing_order": "recipe"}, "--preprocessing-order recipe"),
        ({"foreground_channel": True}, "--foreground-channel"),
        ({"overrides": ("axis-order=0,1,2",)}, "--set axis_order"),
    ],
)
def test_options_that_contradict_the_plan_are_named(options, named):
    with pytest.raises(OptionError, match=named) as caught:
        options_with(source_plan(), PlanOptions(**options))
    assert caught.value.code == "E-OPTION-CONFLICT"


def test_spacings_in_another_unit_are_refused():
    with pytest.raises(PlanError, match="spacings in pixel"):
        derived(source_plan(spacing_unit="pixel"))
