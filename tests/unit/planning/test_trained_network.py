"""A plan for the network of a trained model: patch, batch, mirroring and steps are those of this network."""

from __future__ import annotations

import math

import pytest

from decathlete.planning.adaptation import adapt_plan, steps_after_adaptation, training_steps
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.explain import explain
from decathlete.planning.overrides import override
from decathlete.planning.plan import CoarseStart, Plan
from decathlete.planning.trained_network import with_trained_network
from made_up import made_up_plan

TEN_MINUTES = ComputeBudget(device="cpu", max_time_s=600, threads=2, arithmetic="bf16")
GPU_NETWORK = made_up_plan(shape=(160, 192, 160), block="residual").network
"""For patches of 128 voxels and more: 32 channels at full resolution, pooled five times."""


@pytest.fixture
def plan() -> Plan:
    return with_trained_network(made_up_plan(shape=(96, 96, 96)), GPU_NETWORK, model="M")


def test_the_network_stays_and_the_patch_becomes_smaller(plan: Plan) -> None:
    adapted = adapt_plan(plan, TEN_MINUTES)
    assert adapted.network == plan.network
    assert math.prod(adapted.patch_size) < math.prod(plan.patch_size)
    pairs = list(zip(adapted.patch_size, plan.network.divisor, strict=True))
    assert all(size % divisor == 0 and size >= 2 * divisor for size, divisor in pairs)
    assert adapted.batch_size == 2
    assert adapted.mirror_axes == ()
    n_steps = training_steps(adapted, TEN_MINUTES)
    assert n_steps > 4 * training_steps(plan, TEN_MINUTES)
    assert adapted.reasons["budget"].endswith(
        f"{n_steps} steps in 10 min instead of {training_steps(plan, TEN_MINUTES)}"
    )
    assert steps_after_adaptation(plan, TEN_MINUTES) == n_steps
    assert explain(adapted).count("the network of the pretrained model M") == 1
    assert "doubling" not in explain(adapted)


def test_a_cpu_without_a_time_limit_gets_a_small_batch_alone() -> None:
    plan = with_trained_network(made_up_plan(2), made_up_plan(2, block="residual").network, model="M")
    adapted = adapt_plan(plan, ComputeBudget(device="cpu"))
    assert adapted.batch_size < plan.batch_size
    assert (adapted.network, adapted.patch_size) == (plan.network, plan.patch_size)
    assert adapt_plan(plan, ComputeBudget(device="cuda")) == plan


def test_a_patch_and_a_batch_that_the_user_set_stay(plan: Plan) -> None:
    by_hand = override(plan, ["patch_size=96,96,64", "batch_size=5"])
    adapted = adapt_plan(by_hand, TEN_MINUTES)
    assert (adapted.patch_size, adapted.batch_size, adapted.network) == ((96, 96, 64), 5, plan.network)


def test_the_network_is_the_same_on_both_grids_of_a_coarse_start(plan: Plan) -> None:
    both = plan.revised(coarse_start=CoarseStart(target_spacing=(2, 2, 4)))
    adapted = adapt_plan(both, TEN_MINUTES)
    assert adapted.network == plan.network
    assert adapted.patch_size == adapt_plan(both.on_coarse_grid(), TEN_MINUTES).patch_size
