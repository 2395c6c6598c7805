"""The highest Dice that a grid allows."""

from __future__ import annotations

import logging

import nibabel
import numpy as np
import pytest

from decathlete.core import machine
from decathlete.dataset.spec import Case
from decathlete.errors import CasesFailedError
from decathlete.preprocessing.ceilings import MOST_CASES, measure_ceilings
from factories import make_test_plan

SPACINGS = [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (4.0, 4.0, 4.0)]


def case_with(folder, label_ZYX, case_id="a"):
    path = folder / f"{case_id}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(label_ZYX.transpose(2, 1, 0), np.eye(4)), path)
    return Case(id=case_id, images=(path,), label=path, group=None)


def ball_and_sheet(shape=(40, 40, 40)):
    z, y, x = np.indices(shape)
    label = ((z - 20) ** 2 + (y - 20) ** 2 + (x - 14) ** 2 < 100).astype(np.uint8)
    label[8:32, 8:32, 33] = 2
    return label


def test_full_resolution_keeps_everything_and_thin_structures_lose_first(tmp_path):
    full, half, quarter = measure_ceilings([case_with(tmp_path, ball_and_sheet())], make_test_plan(), SPACINGS)
    assert full.dice == (1.0, 1.0)
    ball, sheet = zip(half.dice, quarter.dice, strict=True)
    assert 1 > ball[0] > ball[1] > 0.85
    assert sheet[1] == 0
    assert half.spacing == (2.0, 2.0, 2.0)
    assert half.mean == pytest.approx(sum(half.dice) / 2)


def test_the_box_around_the_labels_changes_nothing(tmp_path):
    """The same ball in a large image: resampling it whole gives what the box gives, but for the grid's phase."""
    large = np.zeros((120, 120, 120), np.uint8)
    large[40:80, 40:80, 40:80] = ball_and_sheet()
    (small_box,) = measure_ceilings([case_with(tmp_path, ball_and_sheet())], make_test_plan(), [(2.0, 2.0, 2.0)])
    (inside,) = measure_ceilings([case_with(tmp_path, large, "b")], make_test_plan(), [(2.0, 2.0, 2.0)])
    assert inside.dice[0] == pytest.approx(small_box.dice[0], abs=0.01)


def test_the_mean_is_over_the_cases_that_contain_a_structure(tmp_path):
    only_ball = np.where(ball_and_sheet() == 1, 1, 0).astype(np.uint8)
    empty = np.zeros_like(only_ball)
    cases = [case_with(tmp_path, label, name) for name, label in (("a", only_ball), ("b", empty))]
    (alone,) = measure_ceilings(cases[:1], make_test_plan(), [(2.0, 2.0, 2.0)])
    (both,) = measure_ceilings(cases, make_test_plan(), [(2.0, 2.0, 2.0)])
    assert both.dice == alone.dice
    assert both.dice[1] == 1.0  # no case contains it, so nothing is known against the grid


def test_slices_of_a_2d_plan_are_not_resampled_across(tmp_path):
    sheet = np.zeros((12, 32, 32), np.uint8)
    sheet[6, 8:24, 8:24] = 1
    plan = make_test_plan(2)
    (ceiling,) = measure_ceilings([case_with(tmp_path, sheet)], plan, [(None, 2.0, 2.0)])
    assert ceiling.dice[0] > 0.9


def test_workers_and_order_change_nothing_and_many_cases_are_a_sample(tmp_path):
    cases = [case_with(tmp_path, np.roll(ball_and_sheet(), i, axis=0), f"c{i}") for i in range(MOST_CASES + 1)]
    plan = make_test_plan()
    assert measure_ceilings(cases, plan, SPACINGS, workers=1) == measure_ceilings(cases, plan, SPACINGS, workers=4)


def test_little_memory_measures_fewer_cases_at_a_time(tmp_path, monkeypatch, caplog):
    cases = [case_with(tmp_path, ball_and_sheet(), f"c{i}") for i in range(3)]
    expected = measure_ceilings(cases, make_test_plan(), SPACINGS)
    monkeypatch.setattr(machine, "available_memory_bytes", lambda: 2_500_000)  # 64,000 voxels, 26 bytes each
    with caplog.at_level(logging.INFO, "decathlete"):
        assert measure_ceilings(cases, make_test_plan(), SPACINGS, workers=3) == expected
    (record,) = caplog.records
    assert record.getMessage().startswith("measure 1 instead of 3 cases at a time: the largest case (c")


def test_an_unreadable_label_is_named(tmp_path):
    good = case_with(tmp_path, ball_and_sheet())
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    bad = Case(id="bad", images=good.images, label=tmp_path / "bad.nii.gz", group=None)
    with pytest.raises(CasesFailedError, match=r"bad\.nii\.gz"):
        measure_ceilings([good, bad], make_test_plan(), SPACINGS)
