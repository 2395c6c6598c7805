"""A foreground that is connected in the label maps: then models keep the largest component of a prediction."""

from __future__ import annotations

import numpy as np
import pytest

from decathlete.core.labels import IGNORE_INDEX, LabelClass, LabelSet, Region
from decathlete.planning.connected import FEWEST_CASES, cover_foreground, is_connected, largest_share
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import override
from decathlete.planning.planner import make_plan
from made_up import made_up_fingerprint, made_up_spec

ORGANS = LabelSet.from_names(["organ", "tumour"])
CLASSES = tuple(LabelClass(name=n, value=v) for v, n in enumerate(["background", "organ", "tumour"]))
WHOLE = LabelSet(
    classes=CLASSES,
    regions=(Region(name="whole", values=(1, 2)), Region(name="tumour", values=(2,))),
    region_order=(1, 2),
)
TUMOUR_ONLY = LabelSet(classes=CLASSES, regions=(Region(name="tumour", values=(2,)),), region_order=(2,))


def test_voxels_that_touch_at_a_corner_are_connected():
    label_ZYX = np.zeros((3, 4, 4), np.uint8)
    label_ZYX[0, 0, 0], label_ZYX[1, 1, 1], label_ZYX[1, 1, 3] = 1, 2, 2
    assert largest_share(label_ZYX, 3) == 2 / 3


@pytest.mark.parametrize("unknown", [IGNORE_INDEX, IGNORE_INDEX - 1])
def test_the_share_is_unknown_where_something_may_be_hidden(unknown: int):
    assert largest_share(np.array([[[1, 0, 1, unknown]]], np.uint8), 3) is None
    assert largest_share(np.zeros((2, 2, 2), np.uint8), 3) is None


def test_a_few_stray_voxels_are_no_second_component():
    assert is_connected([1.0] * 6 + [0.995] * 6)
    assert not is_connected([0.5] * 12)


@pytest.mark.parametrize(("apart", "connected"), [(1, True), (2, False)])
def test_one_case_in_twenty_may_differ(apart: int, connected: bool):
    assert is_connected([1.0] * (20 - apart) + [0.5] * apart) == connected


def test_few_cases_show_nothing():
    assert is_connected([1.0] * FEWEST_CASES)
    assert not is_connected([1.0] * (FEWEST_CASES - 1))
    assert not is_connected([1.0] * (FEWEST_CASES - 1) + [None] * 5)


def test_a_plan_says_so_with_its_reason_and_can_be_told_otherwise():
    fingerprint = made_up_fingerprint([(36, 50, 35)] * 20, [(1, 1, 1)] * 20)
    older, plan = (make_plan(made_up_spec(), fingerprint.revised(connected=of), dims=3) for of in (False, True))
    assert plan.keep_largest
    assert "connected" in plan.reasons["keep_largest"]
    assert not older.keep_largest
    assert override(older, ["keep_largest=true"]).keep_largest
    assert not override(plan, ["keep_largest=false"]).keep_largest


def test_regions_that_leave_a_class_out_may_have_several_components():
    assert cover_foreground(ORGANS)
    assert cover_foreground(WHOLE)
    assert not cover_foreground(TUMOUR_ONLY)
    fingerprint = made_up_fingerprint([(36, 50, 35)] * 20, [(1, 1, 1)] * 20).revised(connected=True)
    options = PlanOptions(regions={"inner": (2,)})
    assert not make_plan(made_up_spec(), fingerprint, dims=3, options=options).keep_largest


def test_prepared_data_and_weights_do_not_depend_on_it():
    fingerprint = made_up_fingerprint([(36, 50, 35)] * 20, [(1, 1, 1)] * 20)
    measured = fingerprint.revised(connected=True)
    assert measured.digest() == fingerprint.digest()
    assert make_plan(made_up_spec(), measured, dims=3).digest == make_plan(made_up_spec(), fingerprint, dims=3).digest
