"""Which configurations a dataset's images justify, and networks by name."""

from __future__ import annotations

from typing import get_args

import pytest

from decathlete.core.choices import NetworkName
from decathlete.errors import OptionError, PlanError
from decathlete.planning.architectures import ARCHITECTURES, memory_target_gb
from decathlete.planning.configurations import (
    CONFIGURATIONS,
    check_stages,
    dims_of,
    offered_configurations,
    options_of_configuration,
    plan_configuration,
)
from decathlete.planning.explain import explain
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import override, plan_at
from decathlete.planning.plan import Plan
from made_up import made_up_fingerprint, made_up_plan, made_up_spec

LARGE = made_up_fingerprint([(128, 512, 512)] * 20, [(1, 0.8, 0.8)] * 20)
SMALL = made_up_fingerprint([(36, 50, 35)] * 20, [(1, 1, 1)] * 20)
FLAT = made_up_fingerprint([(1, 300, 300)] * 20, [(1, 1, 1)] * 20)
SPEC = made_up_spec()


def offered(fingerprint, **options) -> list[str]:
    offers = offered_configurations(SPEC, fingerprint, options=PlanOptions(**options))
    assert [offer.name for offer in offers] == list(CONFIGURATIONS)
    assert all(offer.reason and (offer.plan is not None) == offer.offered for offer in offers)
    return [offer.name for offer in offers if offer.offered]


def test_large_images_have_all_small_ones_two_and_slices_one():
    assert offered(LARGE) == ["2d", "3d", "3d_lowres", "3d_cascade"]
    assert offered(SMALL) == ["2d", "3d"]
    assert offered(FLAT) == ["2d"]


def test_the_offers_say_why():
    reasons = {offer.name: offer.reason for offer in offered_configurations(SPEC, LARGE)}
    assert reasons["3d_lowres"].startswith("a patch at full resolution covers 7% of the median image; at 1.558")
    assert offered_configurations(SPEC, SMALL)[2].reason.endswith("covers 100% of the median image, which is enough")
    assert {offer.reason for offer in offered_configurations(SPEC, FLAT)[1:]} == {"the images are single slices"}
    option = "target_spacing=1,1,1"
    offer = offered_configurations(SPEC, LARGE, options=PlanOptions(overrides=(option,)))[2]
    assert not offer.offered
    assert offer.reason == f"the target spacing was set (--set {option}), so there is one grid"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_each_plan_knows_its_configuration(name):
    plan = plan_configuration(SPEC, LARGE, name)
    assert (plan.configuration, plan.dims) == (name, dims_of(name))
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert plan == {offer.name: offer.plan for offer in offered_configurations(SPEC, LARGE)}[name]


def test_the_low_resolution_is_planned_and_not_set_by_the_user():
    full, low = (plan_configuration(SPEC, LARGE, name) for name in ("3d", "3d_lowres"))
    assert all(coarse > fine for coarse, fine in zip(low.network_spacing, full.network_spacing, strict=True))
    assert "target_spacing" not in low.user_set
    assert "covers 7% of the median image; here it covers 27%" in low.reasons["target_spacing"]
    assert "Plan of the configuration 3d_lowres for Made" in explain(low)


def test_a_low_resolution_that_is_not_needed_is_refused_unless_the_user_sets_its_grid():
    with pytest.raises(PlanError, match="needs no low resolution") as problem:
        plan_configuration(SPEC, SMALL, "3d_lowres")
    assert problem.value.code == "E-PLAN-CONFIGURATION"
    options = PlanOptions(overrides=("target_spacing=2,2,2",))
    plan = plan_configuration(SPEC, SMALL, "3d_lowres", options=options)
    assert (plan.configuration, plan.target_spacing) == ("3d_lowres", (2, 2, 2))
    for name in ("3d", "3d_lowres", "3d_cascade"):
        with pytest.raises(PlanError, match="single slices"):
            plan_configuration(SPEC, FLAT, name)


def test_a_grid_of_the_user_is_coarser_for_the_first_stage_than_for_the_second(caplog):
    options = PlanOptions(overrides=("target_spacing=2,2,2",))
    low = plan_configuration(SPEC, SMALL, "3d_lowres", options=options)
    for name in ("3d", "3d_cascade"):
        check_stages(low, plan_configuration(SPEC, SMALL, name))
        with pytest.raises(PlanError, match=f"{name} .* is not finer than 3d_lowres") as problem:
            check_stages(low, plan_configuration(SPEC, SMALL, name, options=options))
        assert problem.value.code == "E-PLAN-CONFIGURATION"
    assert "adds nothing" not in caplog.text
    of_time = low.revised(user_set={})
    check_stages(of_time, of_time.revised(configuration="3d_cascade"))
    assert "is not finer than 3d_lowres" in caplog.text


@pytest.mark.parametrize(("value", "own"), [("4,4,4", {}), ("none", {"coarse_start": "--set coarse_start=none"})])
def test_the_low_resolution_has_no_coarse_grid_of_full_resolution_but_does_without_one(value, own):
    options = PlanOptions(overrides=(f"coarse-start={value}",))
    low = plan_configuration(SPEC, LARGE, "3d_lowres", options=options)
    assert (low.coarse_start, low.user_set) == (None, own)
    assert plan_configuration(SPEC, LARGE, "3d_cascade", options=options).user_set.keys() == {"coarse_start"}
    at = plan_at((5, 5, 5), SPEC, LARGE, dims=3, options=options_of_configuration("3d_lowres", options))
    assert at.target_spacing == (5, 5, 5), "also where it is coarser than the grid that the user set"


def test_the_cascade_has_a_mask_for_each_structure_after_the_foreground_channel():
    plan = plan_configuration(SPEC, LARGE, "3d_cascade", options=PlanOptions(foreground_channel=True))
    assert (plan.n_previous, plan.n_masks, plan.n_inputs, plan.network.in_channels) == (2, 3, 4, 4)
    assert "previous stage" in explain(plan)
    regions = PlanOptions(regions="both=1,2;second=2;one=1")
    assert plan_configuration(SPEC, LARGE, "3d_cascade", options=regions).n_previous == 3
    with pytest.raises(OptionError, match="choose it with --configuration"):
        override(plan, ["previous_stage=none"])


def test_digests_of_plans_without_a_previous_stage_stay_what_they_were():
    plan = made_up_plan()
    assert plan.digest == plan.revised(configuration=None).digest
    cascade = plan_configuration(SPEC, LARGE, "3d_cascade")
    assert cascade.digest != plan_configuration(SPEC, LARGE, "3d").digest


def test_every_network_by_name_is_a_preset_of_one_architecture():
    names = [name for component in ARCHITECTURES for name in component.cls.presets]
    assert sorted(names) == sorted(get_args(NetworkName))
    for component in ARCHITECTURES:
        for name, preset in component.cls.presets.items():
            network = made_up_plan(network=name).network
            assert network.architecture == component.name
            assert {field: getattr(network, field) for field in preset.fields} == dict(preset.fields)


def test_networks_by_name_choose_architecture_blocks_and_memory():
    plan = made_up_plan(network="resenc-m")
    assert (plan.network.architecture, plan.network.block) == ("unet", "residual")
    assert plan.user_set["network.block"] == "--network resenc-m"
    assert memory_target_gb(PlanOptions(network="resenc-xl")) == 40
    assert memory_target_gb(PlanOptions(network="resenc-xl", memory_gb=12)) == 12
    assert memory_target_gb(PlanOptions()) == memory_target_gb(PlanOptions(network="plain")) == 8
    assert made_up_plan(network="mednext-l").network.encoder_blocks[:3] == (3, 4, 8)
    # The residual presets do not limit the batch to a share of the dataset.
    assert made_up_plan(network="resenc-m").batch_size > made_up_plan(block="residual").batch_size


@pytest.mark.parametrize("options", [{"block": "residual"}, {"architecture": "mednext"}])
def test_a_network_by_name_and_its_parts_exclude_each_other(options):
    with pytest.raises(OptionError, match="leave out --architecture and --block"):
        PlanOptions(network="plain", **options)


def test_an_unknown_network_lists_the_choices():
    with pytest.raises(OptionError, match="choose plain or resenc-m"):
        PlanOptions(network="resnet")
