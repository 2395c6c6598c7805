"""A foreground that is connected in the label maps: then models keep the largest component of a prediction."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import made_up_fingerprint, made_up_spec

from decathlete.core.labels import IGNORE_INDEX, LabelClass, LabelSet, Region
from decathlete.planning.connected import FEWEST_CASES, is_connected, largest_share
from decathlete.planning.fingerprint import CaseFingerprint
from decathlete.planning.overrides import override
from decathlete.planning.planner import make_plan

ORGANS = LabelSet.from_names(["organ", "tumour"])
CLASSES = tuple(LabelClass(name=n, value=v) for v, n in enumerate(["background", "organ", "tumour"]))
WHOLE = LabelSet(
    classes=CLASSES,
    regions=(Region(name="whole", values=(1, 2)), Region(name="tumour", values=(2,))),
    region_order=(1, 2),
)
TUMOUR_ONLY = LabelSet(classes=CLASSES, regions=(Region(name="tumour", values=(2,)),), region_order=(2,))


def cases_with(*shares: float | None) -> tuple[CaseFingerprint, ...]:
    fingerprint = made_up_fingerprint([(9, 9, 9)] * len(shares), [(1, 1, 1)] * len(shares))
    return tuple(case.revised(largest_share=of) for case, of in zip(fingerprint.cases, shares, strict=True))


def test_voxels_that_touch_at_a_corner_are_connected():
    label_ZYX = np.zeros((3, 4, 4), np.uint8)
    label_ZYX[0, 0, 0], label_ZYX[1, 1, 1], label_ZYX[1, 1, 3] = 1, 2, 2
    assert largest_share(label_ZYX, 3) == 2 / 3


@pytest.mark.parametrize("unknown", [IGNORE_INDEX, IGNORE_INDEX - 1])
def test_the_share_is_unknown_where_something_may_be_hidden(unknown: int):
    assert largest_share(np.array([[[1, 0, 1, unknown]]], np.uint8), 3) is None
    assert largest_share(np.zeros((2, 2, 2), np.uint8), 3) is None


def test_structures_that_touch_in_all_cases_are_connected():
    assert is_connected(ORGANS, cases_with(*[1.0] * 6, *[0.995] * 6))
    assert not is_connected(ORGANS, cases_with(*[0.5] * 12))
    assert is_connected(WHOLE, cases_with(*[1.0] * 12))


def test_regions_that_leave_a_class_out_are_not():
    assert not is_connected(TUMOUR_ONLY, cases_with(*[1.0] * 12))


@pytest.mark.parametrize(("apart", "connected"), [(1, True), (2, False)])
def test_one_case_in_twenty_may_differ(apart: int, connected: bool):
    assert is_connected(ORGANS, cases_with(*[1.0] * (20 - apart), *[0.5] * apart)) == connected


def test_few_cases_show_nothing():
    assert is_connected(ORGANS, cases_with(*[1.0] * FEWEST_CASES))
    assert not is_connected(ORGANS, cases_with(*[1.0] * (FEWEST_CASES - 1)))
    assert not is_connected(ORGANS, cases_with(*[1.0] * (FEWEST_CASES - 1), None, None))


def test_a_plan_says_so_with_its_reason_and_can_be_told_otherwise():
    fingerprint = made_up_fingerprint([(36, 50, 35)] * 20, [(1, 1, 1)] * 20)
    measured = fingerprint.revised(cases=tuple(case.revised(largest_share=1.0) for case in fingerprint.cases))
    older, plan = (make_plan(made_up_spec(), of, dims=3) for of in (fingerprint, measured))
    assert plan.keep_largest
    assert "connected" in plan.reasons["keep_largest"]
    assert not older.keep_largest
    assert override(older, ["keep_largest=true"]).keep_largest
    assert not override(plan, ["keep_largest=false"]).keep_largest


def test_prepared_data_and_weights_do_not_depend_on_it():
    fingerprint = made_up_fingerprint([(36, 50, 35)] * 20, [(1, 1, 1)] * 20)
    measured = fingerprint.revised(cases=tuple(case.revised(largest_share=1.0) for case in fingerprint.cases))
    older, plan = (make_plan(made_up_spec(), of, dims=3) for of in (fingerprint, measured))
    assert measured.digest() == fingerprint.digest()
    assert plan.digest == older.digest
