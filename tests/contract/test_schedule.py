"""What every learning-rate schedule promises, built in or of a plug-in."""

from __future__ import annotations

import math

import pytest

from decathlete.training.objective.schedules import SCHEDULES

NEEDED = {"multistep": {"steps": (0.3, 0.6)}}
"""Settings without which a schedule makes no sense."""

pytestmark = pytest.mark.parametrize("name", SCHEDULES.names())


def test_it_is_a_share_of_the_peak_throughout(name: str) -> None:
    schedule = SCHEDULES.build(SCHEDULES.settings({"name": name, **NEEDED.get(name, {})}))
    factors = [schedule.factor(i / 500, n_epochs=20, plateau_factor=1.0) for i in range(501)]
    assert all(math.isfinite(f) and 0 < f <= 1 + 1e-12 for f in factors)
    assert max(factors) == pytest.approx(1.0)
    assert not list(schedule.problems(n_epochs=20, timed=True))


def test_progress_beyond_its_ends_is_that_of_its_ends(name: str) -> None:
    schedule = SCHEDULES.build(SCHEDULES.settings({"name": name, **NEEDED.get(name, {})}))
    for beyond, end in ((-0.1, 0.0), (1.1, 1.0)):
        one, other = (schedule.factor(p, n_epochs=20, plateau_factor=1.0) for p in (beyond, end))
        assert one == other


def test_only_a_schedule_that_says_so_heeds_plateaus(name: str) -> None:
    schedule = SCHEDULES.build(SCHEDULES.settings({"name": name, **NEEDED.get(name, {})}))
    with_plateau, without_plateau = (schedule.factor(0.5, n_epochs=20, plateau_factor=f) for f in (0.1, 1.0))
    assert (with_plateau != without_plateau) == (schedule.plateau is not None)
