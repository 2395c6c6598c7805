"""The grid for a training time: candidates, what they promise, and which one is chosen."""

from __future__ import annotations

import itertools
import math

import pytest

from decathlete.errors import OptionError
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import plan_at, plan_with
from decathlete.planning.resolution import Ceiling, candidate_spacings, choose_resolution, resolution_is_open
from made_up import made_up_fingerprint, made_up_plan, made_up_spec

SHAPE = (160, 192, 160)
MINUTES = ComputeBudget(device="cpu", max_time_s=300, threads=2, arithmetic="bf16")


def planned(shape=SHAPE, spacing=(1, 1, 1), dims=3, overrides=()):
    spec, fingerprint = made_up_spec(), made_up_fingerprint([shape] * 20, [spacing] * 20)
    return plan_with(spec, fingerprint, dims=dims, options=PlanOptions(overrides=overrides))


def chosen(plan, dice_of_spacing, budget=MINUTES, n_cases=20, **dataset):
    def replan(spacing):
        text = ",".join("none" if s is None else repr(s) for s in spacing)
        return planned(dims=plan.dims, overrides=(f"target_spacing={text}",), **dataset)

    ceilings = [Ceiling(spacing=s, dice=(dice_of_spacing(s[-1]),)) for s in candidate_spacings(plan)]
    return choose_resolution(plan, ceilings, budget, n_cases=n_cases, replan=replan)


def test_candidates_go_from_full_resolution_to_a_quarter():
    spacings = candidate_spacings(planned())
    assert spacings[0] == (1, 1, 1)
    assert spacings[-1] == (4, 4, 4)
    voxels = [1 / math.prod(s) for s in spacings]
    assert [b / a for a, b in itertools.pairwise(voxels)] == pytest.approx([0.5] * 6, rel=1e-3)


def test_thick_slices_keep_their_distance_until_voxels_are_as_long_in_plane():
    spacings = candidate_spacings(planned(shape=(10, 256, 216), spacing=(2.5, 1, 1)))
    assert [s for s in spacings if s[1] < 2.5] == [(2.5, s[1], s[1]) for s in spacings if s[1] < 2.5]
    assert spacings[-1] == (4, 4, 4)


def test_slices_of_a_2d_model_keep_their_distance():
    assert {s[0] for s in candidate_spacings(planned(dims=2))} == {None}


def test_full_resolution_is_the_plan_itself_whatever_its_digits():
    """A rounded spacing would be planned again, as if the user had set it."""
    fine = (0.9765624, 0.9765624, 0.9765624)
    assert candidate_spacings(planned(spacing=fine))[0] == fine


def test_a_short_time_on_a_large_image_makes_the_grid_coarser():
    plan = planned()
    coarse = chosen(plan, lambda spacing: 1 - 0.02 * (spacing - 1))
    spacings = candidate_spacings(plan)
    start, end = coarse.coarse_start.target_spacing, coarse.target_spacing
    assert spacings.index(end) == max(spacings.index(start) - 2, 0)
    assert coarse.on_coarse_grid().median_shape < plan.median_shape
    assert coarse.user_set == {"target_spacing": coarse.user_set["target_spacing"]}
    assert "patches of" in coarse.reasons["coarse_start"]
    assert "labels keep a Dice of" in coarse.reasons["coarse_start"]
    assert "for 5 min on a CPU with 2 threads" in coarse.reasons["coarse_start"]
    assert "the training begins on a coarser grid" in coarse.reasons["target_spacing"]


def test_patch_batch_and_network_are_planned_for_the_grid_of_the_start():
    found = chosen(planned(), lambda spacing: 1 - 0.02 * (spacing - 1))
    text = ",".join(map(repr, found.coarse_start.target_spacing))
    as_planned = planned(overrides=(f"target_spacing={text}",))
    for field in ("patch_size", "batch_size", "network"):
        assert getattr(found, field) == getattr(as_planned, field), field


def test_few_cases_have_no_coarse_start():
    few = chosen(planned(), lambda spacing: 1 - 0.02 * (spacing - 1), n_cases=19)
    many = chosen(planned(), lambda spacing: 1 - 0.02 * (spacing - 1), n_cases=20)
    assert few.coarse_start is None
    assert few.target_spacing == many.coarse_start.target_spacing


def test_without_a_coarse_start_all_of_the_training_uses_the_coarse_grid():
    with_start = chosen(planned(), lambda spacing: 1 - 0.02 * (spacing - 1))
    plan = planned(overrides=("coarse_start=none",))
    without = chosen(plan, lambda spacing: 1 - 0.02 * (spacing - 1))
    assert without.coarse_start is None
    assert without.target_spacing == with_start.coarse_start.target_spacing
    assert "coarser than full resolution (1 × 1 × 1 mm: the median" in without.reasons["target_spacing"]
    assert "for 5 min on a CPU with 2 threads" in without.reasons["target_spacing"]


def test_the_end_is_never_finer_than_full_resolution():
    found = chosen(planned(), lambda spacing: 1 - 0.2 * max(spacing - 1.3, 0))
    assert found.coarse_start is not None
    assert found.target_spacing == (1, 1, 1)
    assert found.reasons["target_spacing"].startswith(planned().reasons["target_spacing"])


def test_a_network_that_the_user_set_keeps_the_grids_that_it_fits():
    """Coarse grids of a small image have fewer levels than the network that was set."""
    spec, fingerprint = made_up_spec(), made_up_fingerprint([(36, 50, 35)] * 20, [(1, 1, 1)] * 20)
    options = PlanOptions(overrides=("network.features=24,48,96,192",))
    plan = plan_with(spec, fingerprint, dims=3, options=options)
    ceilings = [Ceiling(spacing=s, dice=(1.0,)) for s in candidate_spacings(plan)]

    def replan(spacing):
        return plan_at(spacing, spec, fingerprint, dims=3, options=options, configuration="3d")

    with pytest.raises(OptionError, match="network"):
        replan(ceilings[-1].spacing)
    found = choose_resolution(plan, ceilings, MINUTES, n_cases=20, replan=replan)
    assert found.network.features == (24, 48, 96, 192)


def test_fine_structures_keep_full_resolution():
    plan = planned()
    assert chosen(plan, lambda spacing: 1 / spacing**4) is plan


def test_enough_time_keeps_full_resolution():
    plan = planned()
    long = ComputeBudget(device="cpu", max_time_s=14 * 24 * 3600, threads=32, arithmetic="bf16_tiles")
    assert chosen(plan, lambda spacing: 1 - 0.03 * (spacing - 1), long) is plan


def test_small_images_keep_full_resolution_that_large_ones_lose():
    small = {"shape": (36, 50, 35)}
    plan = planned(**small)
    assert chosen(plan, lambda spacing: 1 - 0.05 * (spacing - 1), **small) is plan


@pytest.mark.parametrize(
    ("overrides", "budget", "is_open"),
    [
        ((), MINUTES, True),
        ((), ComputeBudget(device="cpu"), False),
        (("target_spacing=2,2,2",), MINUTES, False),
        (("patch_size=32,32,32",), MINUTES, False),
        (("target_spacing=none,none,none",), MINUTES, False),
        (("batch_size=4",), MINUTES, True),
        (("coarse_start=none",), MINUTES, True),
        (("coarse_start=2,2,2",), MINUTES, False),
    ],
)
def test_the_budget_chooses_only_what_the_user_did_not(overrides, budget, is_open):
    assert resolution_is_open(planned(overrides=overrides), budget) == is_open


def test_a_spacing_set_by_hand_replans_patch_and_network():
    plan = planned(overrides=("target_spacing=2,2,2",))
    as_planned = made_up_plan(shape=tuple(n // 2 for n in SHAPE), spacing=(2, 2, 2))
    assert plan.target_spacing == (2, 2, 2)
    for field in ("median_shape", "patch_size", "network"):
        assert getattr(plan, field) == getattr(as_planned, field), field
    assert plan.patch_size != planned().patch_size


def test_a_patch_set_with_the_spacing_stays():
    plan = planned(overrides=("target_spacing=2,2,2", "patch_size=32,32,32"))
    assert (plan.target_spacing, plan.patch_size) == ((2, 2, 2), (32, 32, 32))
