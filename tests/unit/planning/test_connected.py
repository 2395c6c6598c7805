"""Structures that are connected in the label maps: what the plan keeps of a prediction."""

from __future__ import annotations

import numpy as np
import pytest

from decathlete.core.labels import LabelClass, LabelSet, Region
from decathlete.planning.connected import FEWEST_CASES, find_connected, largest_shares
from decathlete.planning.fingerprint import CaseFingerprint
from decathlete.planning.options import PlanOptions
from decathlete.planning.overrides import override
from decathlete.planning.planner import make_plan
from unit.planning.made_up import made_up_fingerprint, made_up_spec

KIDNEYS = LabelSet.from_names(["left", "right"])
TUMOUR = LabelSet(
    classes=tuple(LabelClass(name=n, value=v) for v, n in enumerate(["background", "edema", "core"])),
    regions=(Region(name="whole", values=(1, 2)), Region(name="inner", values=(2,))),
    region_order=(1, 2),
)
TOGETHER, APART, SPECK = (1.0, 1.0, 1.0), (0.5, 1.0, 1.0), (0.995, 1.0, 0.99)


def cases_with(*shares: tuple[float, ...]) -> list[CaseFingerprint]:
    fingerprint = made_up_fingerprint([(9, 9, 9)] * len(shares), [(1, 1, 1)] * len(shares))
    return [case.revised(largest_shares=of) for case, of in zip(fingerprint.cases, shares, strict=True)]


def test_voxels_that_touch_at_a_corner_are_connected():
    label_ZYX = np.zeros((3, 4, 4), np.uint8)
    label_ZYX[0, 0, 0], label_ZYX[1, 1, 1], label_ZYX[1, 1, 3] = 1, 2, 2
    assert largest_shares(label_ZYX, 3) == (2 / 3, 1.0, 0.5)


def test_ignored_voxels_and_absent_classes_are_no_component():
    label_ZYX = np.array([[[1, 255, 1, 1]]], np.uint8)
    assert largest_shares(label_ZYX, 3) == (2 / 3, 2 / 3, 0.0)
    assert largest_shares(np.zeros((2, 2, 2), np.uint8), 3) == (0.0, 0.0, 0.0)


def test_structures_that_touch_are_one_group():
    assert find_connected(KIDNEYS, cases_with(*[TOGETHER] * 6, *[SPECK] * 6)) == (("left", "right"),)
    assert find_connected(TUMOUR, cases_with(*[TOGETHER] * 12)) == (("whole", "inner"),)


def test_structures_apart_are_groups_of_their_own():
    assert find_connected(KIDNEYS, cases_with(*[APART] * 12)) == (("left",), ("right",))
    assert find_connected(KIDNEYS, cases_with(*[(0.5, 1.0, 0.6)] * 12)) == (("left",),)
    assert find_connected(TUMOUR, cases_with(*[APART] * 12)) == (("inner",),), "a region of several classes is unknown"


@pytest.mark.parametrize(("apart", "groups"), [(1, (("left", "right"),)), (2, (("left",), ("right",)))])
def test_one_case_in_twenty_may_differ(apart: int, groups: tuple[tuple[str, ...], ...]):
    assert find_connected(KIDNEYS, cases_with(*[TOGETHER] * (20 - apart), *[APART] * apart)) == groups


def test_few_cases_show_nothing():
    enough = cases_with(*[TOGETHER] * FEWEST_CASES)
    assert find_connected(KIDNEYS, enough)
    assert find_connected(KIDNEYS, enough[1:]) == ()
    assert find_connected(KIDNEYS, enough, partial=["case0"]) == (), "a case that annotates a part of the classes"
    assert find_connected(KIDNEYS, cases_with(*[()] * 20)) == (), "of an older release"


def test_a_plan_keeps_the_largest_component_and_says_why():
    fingerprint = made_up_fingerprint([(36, 50, 35)] * 20, [(1, 1, 1)] * 20)
    measured = fingerprint.revised(cases=tuple(cases_with(*[TOGETHER] * 20)))
    older = make_plan(made_up_spec(), fingerprint, dims=3)
    plan = make_plan(made_up_spec(), measured, dims=3, options=PlanOptions())
    assert plan.keep_largest == (("c1", "c2"),)
    assert "connected" in plan.reasons["keep_largest"]
    assert "keep_largest" not in older.model_dump()
    assert measured.digest() == fingerprint.revised(cases=tuple(cases_with(*[()] * 20))).digest()


def test_it_can_be_set_and_names_are_checked():
    cases = tuple(cases_with(*[TOGETHER] * 20))
    plan = make_plan(
        made_up_spec(), made_up_fingerprint([(9, 9, 9)] * 20, [(1, 1, 1)] * 20).revised(cases=cases), dims=3
    )
    assert override(plan, ["keep_largest=[]"]).keep_largest == ()
    assert override(plan, ["keep_largest=c1;c2"]).keep_largest == (("c1",), ("c2",))
    assert override(plan, ["keep_largest=c1"]).keep_largest == (("c1",),)
    with pytest.raises(Exception, match="unknown structures: liver"):
        override(plan, ["keep_largest=liver"])
