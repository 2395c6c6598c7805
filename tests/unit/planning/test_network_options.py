"""What the options of the network make of the plan."""

from __future__ import annotations

import pytest

from decathlete.errors import OptionError
from decathlete.networks.build import build_network
from decathlete.planning.adaptation import adapt_plan
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.explain import explain
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import override, plan_with
from made_up import made_up_fingerprint, made_up_plan, made_up_spec

BIG = {"shape": (128, 128, 128)}


def test_depth_is_at_most_so_many_poolings():
    assert made_up_plan(**BIG).network.n_stages == 6
    plan = made_up_plan(**BIG, depth=3)
    assert plan.network.divisor == (8, 8, 8)
    assert plan.reasons["network.strides"] == "set by --depth 3"
    assert made_up_plan(**BIG, depth=9).network.n_stages == 6


def test_feature_maps_stay_as_long_as_min_fmap():
    plan = made_up_plan(**BIG, min_fmap=16)
    coarsest = [p // d for p, d in zip(plan.patch_size, plan.network.divisor, strict=True)]
    assert 16 <= min(coarsest) < 32
    assert "--min-fmap 16" in plan.reasons["network.strides"]


def test_filters_are_the_features_and_limit_the_levels():
    plan = made_up_plan(**BIG, filters=(8, 20, 30))
    assert plan.network.features == (8, 20, 30)
    assert plan.network.divisor == (4, 4, 4)
    assert plan.reasons["network.features"] == "set by --filters 8,20,30"
    assert made_up_plan(filters=(8,) * 9).network.features == (8,) * made_up_plan().network.n_stages


def test_a_wide_encoder_needs_a_smaller_patch_for_the_same_memory():
    wide, plain = made_up_plan(**BIG, wide_encoder=True), made_up_plan(**BIG)
    assert wide.network.features[:4] == (64, 96, 128, 192)
    assert wide.patch_size < plain.patch_size
    assert wide.reasons["network.features"] == "set by --wide-encoder"


def test_heads_are_outputs_of_the_network_in_training():
    assert made_up_plan(**BIG).network.heads == 4
    assert made_up_plan(**BIG, heads=2).network.heads == 2
    assert made_up_plan(**BIG, heads=9).network.heads == 5
    plan = made_up_plan(deep_supervision=False)
    assert len(build_network(plan.network).heads) == 1
    assert plan.reasons["network.heads"] == "set by --no-deep-supervision"


def test_the_slope_is_that_of_the_activations():
    network = build_network(made_up_plan(negative_slope=0.25).network)
    slopes = {module.negative_slope for module in network.modules() if hasattr(module, "negative_slope")}
    assert slopes == {0.25}


def test_what_is_set_by_hand_is_not_narrowed_for_a_short_time():
    budget = ComputeBudget(device="cpu", max_time_s=60, threads=2)
    assert adapt_plan(made_up_plan(**BIG), budget).network.features[0] < 32
    kept = adapt_plan(made_up_plan(**BIG, filters=(32, 64, 96)), budget)
    assert kept.network.features == (32, 64, 96)
    one = adapt_plan(made_up_plan(**BIG, deep_supervision=False), budget)
    assert one.network.features[0] < 32
    assert (one.network.heads, one.reasons["network.heads"]) == (1, "set by --no-deep-supervision")


def test_a_new_patch_keeps_the_depth_set_by_hand():
    plan = override(made_up_plan(**BIG, depth=2), ["patch_size=64,64,64"])
    assert plan.network.divisor == (4, 4, 4)
    assert plan.reasons["network.strides"] == "set by --depth 2"


def test_a_new_patch_where_the_plan_is_made_follows_the_options():
    options = PlanOptions(filters=(8, 12, 16, 24), deep_supervision=False, overrides=("patch_size=16,64,64",))
    fingerprint = made_up_fingerprint([(128, 128, 128)] * 9, [(1, 1, 1)] * 9)
    network = plan_with(made_up_spec(), fingerprint, dims=3, options=options).network
    assert network.divisor == (4, 8, 8)
    assert (network.features, network.heads) == ((8, 12, 16, 24), 1)


def test_block_and_norm_say_that_they_were_set():
    plan = made_up_plan(block="residual", norm="group")
    assert plan.reasons["network.block"] == "set by --block residual"
    assert plan.reasons["network.norm"] == "set by --norm group"
    assert "network.norm" not in made_up_plan().reasons
    kinds = {type(module).__name__ for module in build_network(plan.network).modules()}
    assert {"GroupNorm", "ResidualBlock"} <= kinds
    assert "InstanceNorm" not in kinds


def test_what_makes_no_network_is_refused_all_at_once():
    with pytest.raises(OptionError, match="6 problems"):
        PlanOptions(
            filters=(8,), wide_encoder=True, depth=0, min_fmap=0, negative_slope=2, heads=3, deep_supervision=False
        )


@pytest.mark.parametrize("network", ["resenc-m", "mednext-s"])
def test_the_name_of_the_network_is_a_reason_of_its_row(network: str) -> None:
    text = explain(made_up_plan(**BIG, network=network))
    assert text.count(f"set by --network {network}") == 1
    assert "network." not in text, "no row has the name of a field"
