"""The gain between two evaluations of the same cases, and its bootstrap interval."""

from __future__ import annotations

import numpy as np
import pytest

from decathlete.evaluation.comparison import Difference


def by_case(values) -> dict[str, float | None]:
    return {f"case{i:03}": value for i, value in enumerate(values)}


def test_the_gain_is_the_difference_of_the_means():
    found = Difference.of(by_case([0.5, 0.7]), by_case([0.6, 0.9]))
    assert (found.before, found.after) == (pytest.approx(0.6), pytest.approx(0.75))
    assert found.gain == pytest.approx(0.15)
    assert found.n_patients == 2


def test_the_interval_is_that_of_the_mean_of_the_paired_differences():
    """For many cases the bootstrap agrees with the normal approximation; unpaired, it would be far wider."""
    generator = np.random.default_rng(0)
    before = generator.uniform(0, 1, 200)
    gains = generator.normal(0.02, 0.05, 200)
    found = Difference.of(by_case(before), by_case(before + gains))
    standard_error = gains.std() / np.sqrt(200)
    assert found.low == pytest.approx(gains.mean() - 1.96 * standard_error, abs=5e-4)
    assert found.high == pytest.approx(gains.mean() + 1.96 * standard_error, abs=5e-4)
    wider = Difference.of(by_case(before), by_case(before + gains), confidence=0.99)
    assert wider.low < found.low < found.high < wider.high


def test_cases_of_one_patient_are_drawn_together():
    """Ten equal scans of each of 8 patients are no more evidence than one scan of each."""
    generator = np.random.default_rng(1)
    of_patient = generator.normal(0.01, 0.03, 8)
    before, after = by_case([0.5] * 80), by_case(np.repeat(0.5 + of_patient, 10))
    patients = {case: f"patient{i // 10}" for i, case in enumerate(before)}
    alone = Difference.of(by_case([0.5] * 8), by_case(0.5 + of_patient))
    together = Difference.of(before, after, patients=patients)
    assert (together.low, together.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    assert together.n_patients == 8
    assert Difference.of(before, after).low > together.low


def test_undefined_values_are_left_out_of_their_own_mean():
    """A removed false positive: 0 before, undefined after."""
    before, after = by_case([0.0, 0.8, 0.8]), by_case([None, 0.8, 0.8])
    found = Difference.of(before, after)
    assert (found.before, found.after) == (pytest.approx(1.6 / 3), pytest.approx(0.8))
    assert np.isfinite([found.low, found.high]).all()
    assert Difference.of(before, by_case([None, None, None])) is None


def test_equal_values_have_no_gain():
    found = Difference.of(by_case([0.4, 0.6]), by_case([0.4, 0.6]))
    assert (found.gain, found.low, found.high) == (0.0, 0.0, 0.0)
    assert str(found) == "+0.000 (95 % interval 0.000 to 0.000)"


def test_a_small_change_is_not_shown_as_none() -> None:
    found = Difference(before=0.675, after=0.6752, gain=0.0002, low=0.00004, high=0.0005, confidence=0.95, n_patients=9)
    assert str(found) == "+0.00020 (95 % interval 0.00004 to 0.00050)"
