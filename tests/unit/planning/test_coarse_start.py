"""A plan with a coarse start: two grids, one network."""

from __future__ import annotations

import pytest

from decathlete.errors import OptionError
from decathlete.networks.architectures.unet import UNetArchitecture
from decathlete.planning.adaptation import adapt_plan, move_to_grid, steps_after_adaptation, training_steps
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.explain import explain
from decathlete.planning.overrides import override
from decathlete.planning.plan import CoarseStart, Plan
from made_up import made_up_plan

MINUTES = ComputeBudget(device="cpu", max_time_s=300, threads=2, arithmetic="bf16")


@pytest.fixture
def plan() -> Plan:
    full = made_up_plan(shape=(160, 192, 160), spacing=(1, 1, 1))
    return full.revised(coarse_start=CoarseStart(target_spacing=(2, 2, 2)))


def test_the_coarse_grid_differs_in_spacing_and_size_alone(plan):
    coarse = plan.on_coarse_grid()
    assert (coarse.target_spacing, coarse.median_shape, coarse.coarse_start) == ((2, 2, 2), (80, 96, 80), None)
    assert coarse.at_spacing((1, 1, 1)).digest == plan.revised(coarse_start=None).digest
    assert coarse.on_coarse_grid() is coarse


def test_slices_keep_their_own_distance_on_both_grids():
    plan = made_up_plan(dims=2, shape=(10, 200, 200), spacing=(8, 1, 1))
    coarse = plan.at_spacing((None, 2, 2))
    assert (coarse.target_spacing, coarse.median_shape) == ((None, 2, 2), (10, 100, 100))


def test_plans_without_one_keep_their_digest(plan):
    without = plan.revised(coarse_start=None)
    values = without.model_dump(mode="json")
    del values["coarse_start"]
    assert Plan.model_validate(values).digest == without.digest
    assert plan.digest != without.digest


@pytest.mark.parametrize("n_cases", [None, 3])
def test_a_plan_is_adapted_to_the_time_on_its_coarse_grid(plan, n_cases):
    adapted, coarse = (adapt_plan(p, MINUTES, n_cases=n_cases) for p in (plan, plan.on_coarse_grid()))
    for field in ("patch_size", "batch_size", "network", "mirror_axes"):
        assert getattr(adapted, field) == getattr(coarse, field), field
    for field in ("target_spacing", "median_shape", "coarse_start"):
        assert getattr(adapted, field) == getattr(plan, field), field
    assert steps_after_adaptation(plan, MINUTES, n_cases=n_cases) == training_steps(coarse, MINUTES)
    assert adapted.patch_size != adapt_plan(plan.revised(coarse_start=None), MINUTES).patch_size


def test_the_network_is_one_for_the_grid_at_the_end():
    coarse = made_up_plan(shape=(10, 128, 112), spacing=(10, 3, 3))
    moved = move_to_grid(coarse, (10, 1.5, 1.5))
    assert moved.patch_size == coarse.patch_size
    assert moved.network.features[0] == coarse.network.features[0]
    flat = [sum(kernel[0] == 1 for kernel in plan.network.kernels) for plan in (coarse, moved)]
    assert flat[1] > flat[0], "thicker slices, beside the pixels, are convolved in plane for longer"
    of_the_user = move_to_grid(coarse.revised(user_set={"network.kernels": "--set ..."}), (10, 1.5, 1.5))
    assert of_the_user.network == coarse.network


def test_the_note_of_an_adaptation_stays_if_the_reason_depends_on_the_grid(monkeypatch):
    """As that of an architecture of an installed package may."""
    coarse = adapt_plan(made_up_plan(shape=(10, 128, 112), spacing=(10, 3, 3)), ComputeBudget(device="cpu"))
    note = coarse.reasons["network.features"]
    assert "narrower for" in note
    by_kernels = lambda network, _: {"network.features": f"kernels {network.spec.kernels}"}  # noqa: E731
    monkeypatch.setattr(UNetArchitecture, "reasons", by_kernels)
    moved = move_to_grid(coarse, (10, 1.5, 1.5))
    assert moved.network.kernels != coarse.network.kernels
    assert moved.reasons["network.features"] == note


@pytest.mark.parametrize("minutes", [2, 5, 20])
def test_full_resolution_alone_is_narrower_on_the_grid_at_the_end_too(minutes):
    """In fp32 on thick slices, where the network of the grid at the end has other strides and kernels."""
    budget = ComputeBudget(device="cpu", max_time_s=60 * minutes, threads=2, arithmetic="fp32")
    coarse = made_up_plan(shape=(10, 128, 112), spacing=(10, 3, 3))
    plan = move_to_grid(coarse, (10, 1.9, 1.9)).revised(coarse_start=CoarseStart(target_spacing=(10, 3, 3)))
    adapted, on_coarse = adapt_plan(plan, budget), adapt_plan(coarse, budget)
    assert adapted.network.features[:2] == on_coarse.network.features[:2] == (8, 32)
    assert adapted.network.kernels != on_coarse.network.kernels
    assert adapted.reasons["network.features"] == on_coarse.reasons["network.features"]
    assert f"narrower for {minutes} min on a CPU" in adapted.reasons["network.features"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("0.5,2,2", "must not be finer"),
        ("1,1,1", "must be coarser"),
        ("none,2,2", "needs a spacing for the axes"),
        ("2,2", "coarse_start.target_spacing"),
        ("yes", "coarse_start"),
    ],
)
def test_a_coarse_start_that_makes_no_sense_is_rejected(value, problem):
    with pytest.raises(OptionError, match=problem):
        override(made_up_plan(spacing=(1, 1, 1)), [f"coarse_start={value}"])


def test_the_user_sets_the_grid_its_share_or_none():
    plan = override(made_up_plan(spacing=(1, 1, 1)), ["coarse_start=1,2,2"])
    assert plan.coarse_start == CoarseStart(target_spacing=(1, 2, 2), share=0.5)
    assert plan.user_set == {"coarse_start": "--set coarse_start=1,2,2"}
    assert override(plan, ["coarse_start.share=0.25"]).coarse_start.share == 0.25
    assert override(plan, ["coarse_start=none"]).coarse_start is None
    with pytest.raises(OptionError, match="less than 1"):
        override(plan, ["coarse_start.share=1"])


def test_grid_and_share_may_be_set_in_any_order():
    texts = ["coarse_start.share=0.25", "coarse_start=2,2,2"]
    plans = [override(made_up_plan(spacing=(1, 1, 1)), order) for order in (texts, texts[::-1])]
    assert [plan.coarse_start for plan in plans] == [CoarseStart(target_spacing=(2, 2, 2), share=0.25)] * 2
    with pytest.raises(OptionError, match="has no coarse_start"):
        override(made_up_plan(), ["coarse_start.share=0.25"])


@pytest.mark.parametrize("text", ["coarse_start=5,2,2", 'coarse_start={"target_spacing": [5, 2, 2]}'])
def test_one_assignment_sets_the_coarse_start_of_slices_and_of_volumes(text):
    volumes, slices = (override(made_up_plan(dims=dims, spacing=(1, 1, 1)), [text]) for dims in (3, 2))
    assert volumes.coarse_start == CoarseStart(target_spacing=(5, 2, 2))
    assert slices.coarse_start == CoarseStart(target_spacing=(None, 2, 2))
    assert slices.user_set == {"coarse_start": f"--set {text}"}
    resampled = override(made_up_plan(dims=2, spacing=(1, 1, 1)), ["target_spacing=4,1,1", text])
    assert resampled.coarse_start == CoarseStart(target_spacing=(5, 2, 2))


def test_the_plan_in_words_names_both_grids(plan):
    text = explain(plan)
    assert "spacing       1 × 1 × 1 mm" in text
    assert "coarse start  2 × 2 × 2 mm for the first 50% of the training" in text
    of_the_user = explain(override(plan, ["coarse_start.share=0.3"]))
    row = of_the_user.index("for the first 30% of the training")
    assert row < of_the_user.index("set by --set coarse_start.share=0.3") < of_the_user.index("patch  ")
