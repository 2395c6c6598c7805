"""What a CPU or a short budget changes, and what it leaves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest

from decathlete.errors import OptionError
from decathlete.planning.adaptation import adapt_plan
from decathlete.planning.compute_budget import CPU_SPEED, Arithmetic, ComputeBudget, step_seconds, usable_threads
from decathlete.planning.few_cases import FEWEST_USEFUL_STEPS, MOST_PASSES, OFTEN_SEEN
from decathlete.planning.overrides import override
from made_up import made_up_plan

HUGE = made_up_plan(shape=(139, 165, 141))


def estimated_steps(plan, budget):
    return 0.8 * budget.max_time_s / step_seconds(plan.network, plan.patch_size, plan.batch_size, budget=budget)


def test_a_gpu_without_a_short_budget_changes_nothing():
    for budget in (ComputeBudget(device="cuda"), ComputeBudget(device="cuda", max_time_s=3600 * 24)):
        assert adapt_plan(HUGE, budget) is HUGE


@pytest.mark.parametrize("n_cases", [None, 3])
def test_a_cpu_gets_a_small_batch_and_a_narrow_network(n_cases):
    plan = made_up_plan()
    fitted = adapt_plan(plan, ComputeBudget(device="cpu", steps=2), n_cases=n_cases)
    assert fitted.batch_size == 2
    assert fitted.network.features == (16, 32, 64, 128)
    assert fitted.patch_size == plan.patch_size
    assert fitted.network.strides == plan.network.strides
    assert {"budget", "batch_size", "network.features"} <= set(fitted.reasons)
    assert "CPU" in fitted.reasons["batch_size"]


def test_a_short_budget_is_narrow_most_of_all_at_full_resolution():
    fitted = adapt_plan(made_up_plan(), ComputeBudget(device="cpu", max_time_s=1200, threads=2))
    assert fitted.network.features == (8, 32, 64, 128)
    assert "8 at full resolution" in fitted.reasons["network.features"]


def test_few_steps_are_not_spent_on_mirror_images():
    plan = made_up_plan()
    assert plan.mirror_axes is None  # all
    short = adapt_plan(plan, ComputeBudget(device="cpu", max_time_s=1200, threads=2))
    assert short.mirror_axes == ()
    assert "steps are too few" in short.reasons["mirror_axes"]
    assert adapt_plan(plan, ComputeBudget(device="cpu", max_time_s=30 * 24 * 3600)).mirror_axes is None
    counted = [adapt_plan(plan, ComputeBudget(device="cuda", steps=steps)).mirror_axes for steps in (500, 250_000)]
    assert counted == [(), None]


def test_few_cases_that_are_seen_often_are_mirrored():
    plan = made_up_plan().revised(batch_size=2)
    assert math.prod(plan.patch_size) > math.prod(plan.median_shape), "a patch shows a whole case"
    enough = OFTEN_SEEN * 20 // 2
    for n_cases, steps, mirrored in ((20, enough, True), (20, enough - 1, False), (2, enough // 10, True)):
        counted = adapt_plan(plan, ComputeBudget(device="cuda", steps=steps), n_cases=n_cases)
        assert (counted.mirror_axes is None) == mirrored, (n_cases, steps)
    together = ComputeBudget(device="cuda", steps=enough // 2, processes=2)
    assert adapt_plan(plan, together, n_cases=20).mirror_axes is None, "each process has a batch"
    many = [adapt_plan(plan, ComputeBudget(device="cuda", steps=n), n_cases=32).mirror_axes for n in (9_999, 10_000)]
    assert many == [(), None]


def test_more_time_never_ends_mirroring_of_few_cases():
    minutes = (2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 90, 120, 240, 480)
    for n_cases in (3, 9, 20):
        budgets = [ComputeBudget(device="cpu", max_time_s=60 * m, threads=2, arithmetic="bf16") for m in minutes]
        mirrored = [adapt_plan(HUGE, budget, n_cases=n_cases).mirror_axes is None for budget in budgets]
        assert mirrored == sorted(mirrored)
        assert mirrored[-1] > mirrored[0]


def test_mirroring_set_by_hand_stays():
    plan = override(made_up_plan(), ["mirror_axes=0,2"])
    fitted = adapt_plan(plan, ComputeBudget(device="cpu", max_time_s=60, threads=1))
    assert fitted.mirror_axes == (0, 2)
    assert fitted.reasons["mirror_axes"] == plan.reasons["mirror_axes"]


def test_time_enough_leaves_a_cpu_the_whole_plan():
    plan = made_up_plan()
    assert adapt_plan(plan, ComputeBudget(device="cpu", max_time_s=30 * 24 * 3600)) is plan


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("minutes", [4, 10, 20])
def test_enough_steps_fit_into_a_short_budget(dims, minutes):
    budget = ComputeBudget(device="cpu", max_time_s=60 * minutes, threads=2)
    planned = made_up_plan(dims, shape=(139, 165, 141))
    fitted = adapt_plan(planned, budget)
    assert estimated_steps(planned, budget) < 300 <= estimated_steps(fitted, budget)
    assert all(p % d == 0 for p, d in zip(fitted.patch_size, fitted.network.divisor, strict=True))
    assert all(p // d >= 4 for p, d in zip(fitted.patch_size, fitted.network.divisor, strict=True) if d > 1)
    assert f"{minutes} min" in fitted.reasons["budget"]


def test_a_longer_budget_never_makes_the_patch_smaller():
    budgets = [ComputeBudget(device="cpu", max_time_s=60 * m, threads=2) for m in (2, 5, 10, 30, 60, 600, 3000)]
    voxels = [math.prod(adapt_plan(HUGE, budget).patch_size) for budget in budgets]
    assert voxels == sorted(voxels)
    assert voxels[0] < voxels[-1] == math.prod(HUGE.patch_size)


def test_few_cases_are_seen_in_larger_patches_instead_of_more_often():
    """20 minutes on STS_PETCT: 1,200 steps of a third of the image were worse than 240 of all of it."""
    plan = made_up_plan(shape=(51, 78, 77), spacing=(3.27, 1.95, 1.95))
    budget = ComputeBudget(device="cpu", max_time_s=1200, threads=2, arithmetic="bf16_tiles")
    many, some, nine, one = (adapt_plan(plan, budget, n_cases=n) for n in (None, 32, 9, 1))
    assert many == some
    assert math.prod(nine.patch_size) > 1.5 * math.prod(many.patch_size)
    assert estimated_steps(many, budget) > 1.5 * estimated_steps(nine, budget) > 1.5 * 9 * MOST_PASSES / 2
    assert estimated_steps(one, budget) > 0.9 * FEWEST_USEFUL_STEPS
    assert "with so few cases more steps would not help, so that the patch is larger" in nine.reasons["budget"]
    assert "few cases" not in many.reasons["budget"]
    longer = replace(budget, max_time_s=7200)
    wide = adapt_plan(plan, longer, n_cases=9)
    assert wide.network.features[0] > adapt_plan(plan, longer).network.features[0]
    assert wide == plan or "few cases" in wide.reasons["budget"]


def test_few_cases_of_which_little_is_seen_are_like_many():
    budget = ComputeBudget(device="cpu", max_time_s=600, threads=2, arithmetic="bf16")
    assert adapt_plan(HUGE, budget, n_cases=3) == adapt_plan(HUGE, budget)


def test_in_2d_each_slice_counts_as_an_image():
    budget = ComputeBudget(device="cpu", max_time_s=1200, threads=2, arithmetic="bf16_tiles")
    for n_slices, differs in ((51, False), (1, True)):
        plan = made_up_plan(2, shape=(n_slices, 256, 256))
        few, many = adapt_plan(plan, budget, n_cases=5), adapt_plan(plan, budget)
        assert (few != many) == differs, n_slices


def test_steps_outweigh_the_size_of_the_patch_and_of_the_batch():
    """2 minutes on ACDC: Dice 0.70 after 331 steps of 10 x 80 x 80, 0.83 after 1045 of 10 x 48 x 48."""
    acdc = made_up_plan(shape=(10, 256, 216), spacing=(10, 1.5, 1.5))
    two, ten, hour = (
        adapt_plan(acdc, ComputeBudget(device="cpu", max_time_s=60 * m, threads=2, arithmetic="bf16"))
        for m in (2, 10, 60)
    )
    sizes = [math.prod(plan.patch_size) for plan in (two, ten, hour)]
    assert sizes[0] < 10 * 64 * 64
    assert sizes[0] <= sizes[1] < sizes[2]
    in_plane = adapt_plan(made_up_plan(2), ComputeBudget(device="cpu", max_time_s=45, threads=1, arithmetic="bf16"))
    assert in_plane.batch_size == 8


def test_a_faster_machine_needs_to_give_up_less():
    slow = adapt_plan(HUGE, ComputeBudget(device="cpu", max_time_s=600, threads=1))
    fast = adapt_plan(HUGE, ComputeBudget(device="cpu", max_time_s=600, threads=32))
    measured = adapt_plan(HUGE, ComputeBudget(device="cpu", max_time_s=600, gflops=32 * CPU_SPEED["fp32"].gflops))
    assert math.prod(slow.patch_size) < math.prod(fast.patch_size)
    assert measured.patch_size == fast.patch_size


def test_a_hopeless_budget_gets_the_smallest_model_and_a_warning(caplog):
    fitted = adapt_plan(HUGE, ComputeBudget(device="cpu", max_time_s=5, threads=2))
    assert fitted.network.features[0] == 8
    assert "steps fit" in caplog.text


@pytest.mark.parametrize(
    ("assignment", "field"),
    [
        ("patch_size=16,48,32", "patch_size"),
        ("batch_size=3", "batch_size"),
        ("network.features=24,48,96,192", "network"),
    ],
)
def test_what_the_user_set_stays(assignment, field):
    plan = override(made_up_plan(), [assignment])
    fitted = adapt_plan(plan, ComputeBudget(device="cpu", max_time_s=60, threads=1))
    assert fitted != plan
    assert getattr(fitted, field) == getattr(plan, field)
    assert fitted.reasons.get(assignment.partition("=")[0]) == plan.reasons[assignment.partition("=")[0]]


def test_all_threads_of_the_process_count_unless_given():
    assert ComputeBudget(device="cpu").threads == usable_threads() >= 1


@pytest.mark.parametrize(
    ("arithmetic", "wide", "narrow"), [("fp32", 1.46, 0.43), ("bf16", 0.76, 0.23), ("bf16_tiles", 0.44, 0.19)]
)
def test_estimate_is_the_measured_step_and_a_reserve(arithmetic, wide, narrow):
    """Two threads of a quiet server CPU, patch 40 x 56 x 40, batch 2: seconds a step with 32 and with 16 features."""
    budget = ComputeBudget(device="cpu", threads=2, arithmetic=arithmetic)
    plan = made_up_plan()
    small = adapt_plan(plan, budget).network
    assert small.features[0] == 16
    assert 1.02 < step_seconds(plan.network, (40, 56, 40), 2, budget=budget) / wide < 1.35
    assert 1.02 < step_seconds(small, (40, 56, 40), 2, budget=budget) / narrow < 1.35


def test_in_bfloat16_no_stage_is_narrower_than_a_vector():
    """8 channels take nearly the time of 16 there."""
    kinds = get_args(Arithmetic)
    budgets = {kind: ComputeBudget(device="cpu", max_time_s=150, threads=2, arithmetic=kind) for kind in kinds}
    first = {kind: adapt_plan(made_up_plan(), budget).network.features[0] for kind, budget in budgets.items()}
    assert first == {"fp32": 8, "bf16": 16, "bf16_tiles": 16}
    gpus = [ComputeBudget(device="cuda", max_time_s=2, arithmetic=kind) for kind in kinds]
    plans = [adapt_plan(made_up_plan(), gpu) for gpu in gpus]
    assert plans == [plans[0]] * len(kinds), "of the CPU alone"


@pytest.mark.parametrize("wrong", [{"max_time_s": 0}, {"max_time_s": math.nan}, {"threads": 0}, {"gflops": -1}])
def test_a_budget_must_allow_something(wrong):
    with pytest.raises(OptionError):
        ComputeBudget(device="cpu", **wrong)
