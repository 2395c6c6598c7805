"""The planner's rules on made-up fingerprints."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decathlete.errors import OptionError, PlanError
from decathlete.planning.explain import explain
from decathlete.planning.memory import memory_fraction
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import override
from decathlete.planning.plan import Plan
from decathlete.planning.planner import make_plan
from made_up import made_up_fingerprint, made_up_plan, made_up_spec


def test_plan_survives_its_file(tmp_path):
    plan = made_up_plan()
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_coarse_axis_comes_first_at_its_tenth_percentile():
    spacings = [(0.8, 0.8, z) for z in (3, 3, 4, 5, 5, 5, 5, 6, 6, 6)]
    plan = make_plan(made_up_spec(), made_up_fingerprint([(300, 280, 20)] * 10, spacings), dims=3)
    assert plan.axis_order == (2, 0, 1)
    assert plan.target_spacing == (pytest.approx(np.percentile([s[2] for s in spacings], 10)), 0.8, 0.8)
    assert plan.median_shape[1:] == (300, 280)
    assert "10th percentile" in plan.reasons["target_spacing"]


def test_coarse_axis_is_never_finer_than_the_others():
    spacings = [(1, 2, 2)] * 3 + [(9, 2, 2)] * 17
    plan = make_plan(made_up_spec(), made_up_fingerprint([(12, 200, 200)] * 20, spacings), dims=3)
    assert plan.target_spacing[0] == pytest.approx(2 + 1e-5, abs=1e-9)


def test_coarse_spacing_with_as_many_voxels_is_left_at_the_median():
    spacings = [(5, 1, 1)] * 3 + [(9, 1, 1)] * 7
    plan = make_plan(made_up_spec(), made_up_fingerprint([(100, 120, 120)] * 10, spacings), dims=3)
    assert plan.target_spacing[0] == 9


def test_2d_keeps_slices_and_plans_in_plane():
    plan = made_up_plan(2, shape=(10, 256, 216), spacing=(10, 1.5, 1.5))
    assert plan.target_spacing == (None, 1.5, 1.5)
    assert plan.median_shape == (10, 256, 216)
    assert plan.patch_size == (256, 224)
    assert plan.network_spacing == (1.5, 1.5)


@pytest.mark.parametrize("thin", [0, 1, 2])
def test_single_slices_lie_first_whatever_their_spacing(thin):
    shape = [64, 64, 64]
    shape[thin] = 1
    fingerprint = made_up_fingerprint([shape] * 4, [(1, 2, 3)] * 4)
    plan = make_plan(made_up_spec(), fingerprint, dims=2)
    assert plan.axis_order[0] == thin
    with pytest.raises(PlanError, match="--dim 2"):
        make_plan(made_up_spec(), fingerprint, dims=3)


def test_normalization_follows_channel_names_and_crop():
    spec = made_up_spec(("cT ", "T1", "noNorm", "rescale_to_0_1"))
    fingerprint = made_up_fingerprint([(50, 50, 50)] * 3, [(1, 1, 1)] * 3, n_channels=4, crop_ratio=0.5)
    ct, t1, none, rescale = make_plan(spec, fingerprint, dims=3).normalization
    assert (ct.component, ct.clip_low, ct.clip_high, ct.mean, ct.std) == ("ct", -120, 160, 50, 20)
    assert (t1.component, t1.nonzero_only) == ("zscore", True)
    assert (none.component, rescale.component) == ("none", "rescale")
    uncropped = made_up_fingerprint([(50, 50, 50)] * 3, [(1, 1, 1)] * 3, n_channels=4, crop_ratio=0.75)
    assert not make_plan(spec, uncropped, dims=3).normalization[1].nonzero_only


def test_more_memory_never_makes_the_patch_smaller():
    voxels = [np.prod(made_up_plan(shape=(200, 300, 300), memory_gb=gb).patch_size) for gb in (2, 4, 8, 16, 32)]
    assert voxels == sorted(voxels)
    assert voxels[0] < voxels[-1]


def test_a_memory_target_nothing_fits_into_is_refused():
    with pytest.raises(PlanError, match="raise --memory"):
        made_up_plan(shape=(200, 300, 300), memory_gb=0.0001)


def test_the_fingerprint_must_be_of_the_dataset():
    fingerprint = made_up_fingerprint([(50, 50, 50)], [(1, 1, 1)])
    with pytest.raises(PlanError, match="not of the dataset"):
        make_plan(made_up_spec(("a", "b")), fingerprint, dims=3)
    with pytest.raises(PlanError, match="orientation"):
        make_plan(made_up_spec(), fingerprint, dims=3, options=PlanOptions(orientation="stored"))


def test_trained_on_holds_ranges_in_working_order():
    fingerprint = made_up_fingerprint([(100, 90, 20), (110, 80, 30)], [(1, 1, 5), (1, 1, 6)])
    plan = make_plan(made_up_spec(), fingerprint, dims=3)
    assert (plan.training_ranges.spacing[0].low, plan.training_ranges.spacing[0].high) == (5, 6)
    assert (plan.training_ranges.size[0].low, plan.training_ranges.size[0].high) == (100, 180)
    assert (plan.training_ranges.size[1].low, plan.training_ranges.size[1].high) == (100, 110)
    assert (plan.training_ranges.intensity[0].low, plan.training_ranges.intensity[0].high) == (0, 1)


def test_every_choice_has_a_reason_and_is_printed():
    plan = made_up_plan(shape=(20, 300, 300), spacing=(5, 0.7, 0.7))
    text = explain(plan)
    flat = " ".join(text.split())
    for field in ("axis_order", "target_spacing", "patch_size", "batch_size", "normalization", "network.strides"):
        assert " ".join(plan.reasons[field].split()) in flat
    assert max(map(len, text.splitlines())) <= 110


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 400)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 10)] * 3),
    dims=st.sampled_from([2, 3]),
    block=st.sampled_from(["plain", "residual"]),
)
def test_any_volume_gets_a_plan_that_fits(shape, spacing, dims, block):
    plan = made_up_plan(dims, shape=shape, spacing=spacing, block=block)
    assert memory_fraction(plan.network, plan.patch_size, memory_gb=8) <= 1
    assert plan.batch_size >= 2
    assert plan.target_spacing[0] == (None if dims == 2 else max(spacing))
    assert all(p % d == 0 for p, d in zip(plan.patch_size, plan.network.divisor, strict=True))


def test_regions_make_an_output_each_and_say_how_they_are_written():
    fingerprint = made_up_fingerprint([(36, 50, 35)] * 20, [(1, 1, 1)] * 20)
    spec = made_up_spec(n_foreground=4)
    plan = make_plan(
        spec, fingerprint, dims=3, options=PlanOptions(regions={"core": (1, 4), "whole": (1, 2, 3, 4), "hot": 4})
    )
    assert plan.network.out_channels == 3
    assert [r.name for r in plan.labels.regions] == ["whole", "core", "hot"]
    assert plan.labels.region_order == (2, 1, 4)
    assert "core: 1 c1, 4 c4 (written as 1)" in " ".join(explain(plan).split())
    assert "--regions" in plan.reasons["labels"]
    assert make_plan(spec, fingerprint, dims=3).network.out_channels == 5


def test_brats_asks_where_names_do_not_decide():
    fingerprint = made_up_fingerprint([(36, 50, 35)] * 20, [(1, 1, 1)] * 20)
    with pytest.raises(OptionError, match="'c1'"):
        make_plan(made_up_spec(n_foreground=3), fingerprint, dims=3, options=PlanOptions(brats=True))


def test_a_foreground_channel_is_one_more_input_and_no_channel_of_the_images():
    fingerprint = made_up_fingerprint([(36, 50, 35)] * 20, [(1, 1, 1)] * 20)
    plan = make_plan(made_up_spec(), fingerprint, dims=3, options=PlanOptions(foreground_channel=True))
    assert (plan.network.in_channels, plan.n_inputs, plan.channels) == (2, 2, ("MRI",))
    assert len(plan.normalization) == len(plan.training_ranges.intensity) == 1
    assert "foreground: 1 in the object" in explain(plan)
    with pytest.raises(OptionError, match="--foreground-channel"):
        override(plan, ["foreground_channel=false"])
