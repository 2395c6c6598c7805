"""Schedules follow progress, averages follow the length of the training."""

from __future__ import annotations

import pytest

from decathlete.training.config import TrainConfig
from decathlete.training.objective.ema import ema_decay
from decathlete.training.objective.schedules import FINAL_SHARE, SCHEDULES


def learning_rate(progress, *, peak, schedule, n_epochs=1000, plateau_factor=1.0, **settings):
    built = SCHEDULES.build(SCHEDULES.settings({"name": schedule, **settings}))
    return peak * built.factor(progress, n_epochs=n_epochs, plateau_factor=plateau_factor)


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_rises_to_its_peak_and_falls_to_nearly_nothing(schedule):
    rates = [learning_rate(i / 1000, peak=0.5, schedule=schedule, warmup=0.03) for i in range(1001)]
    assert rates[0] == pytest.approx(0.005)
    assert max(rates) == rates[30] == pytest.approx(0.5)
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[-1] == pytest.approx(0.5 * FINAL_SHARE)


def test_constant_stays_after_the_warm_up_and_none_needs_one():
    assert learning_rate(0.9, peak=0.1, schedule="constant", warmup=0.1) == 0.1
    assert learning_rate(0.0, peak=0.1, schedule="cosine", warmup=0.0) == 0.1


def test_cosine_is_half_way_down_in_the_middle():
    assert learning_rate(0.5, peak=1.0, schedule="cosine", warmup=0.0) == pytest.approx(0.5)


def test_none_has_not_even_a_warm_up():
    assert learning_rate(0.0, peak=0.1, schedule="none") == 0.1
    assert learning_rate(1.0, peak=0.1, schedule="none") == 0.1
    assert "warmup" not in SCHEDULES.resolve("none").settings.model_fields


def test_multistep_falls_at_exactly_the_first_step_of_each_epoch_named():
    config = TrainConfig(schedule="multistep", epochs=7, steps_per_epoch=3, steps=(2, 5), factor=0.1, warmup=0)
    schedule = config.make_schedule()
    rates = [schedule.factor(step / 21, n_epochs=config.n_epochs, plateau_factor=1.0) for step in range(21)]
    assert rates == pytest.approx([1.0] * 6 + [0.1] * 9 + [0.01] * 6)


def test_multistep_in_shares_of_a_time():
    schedule = TrainConfig(schedule="multistep", max_time_s=60, steps=(0.5, 0.75), factor=0.5).make_schedule()
    rates = [schedule.factor(p, n_epochs=20, plateau_factor=1.0) for p in (0.49, 0.5, 0.8)]
    assert rates == [1.0, 0.5, 0.25]


def test_cosine_restarts_at_its_peak_and_ends_low():
    rates = [learning_rate(i / 900, peak=1.0, schedule="cosine", warmup=0, restarts=2) for i in range(901)]
    assert [i for i in range(1, 901) if rates[i] > rates[i - 1]] == [300, 600]
    assert rates[300] == pytest.approx(1.0)
    assert rates[900] == FINAL_SHARE


def test_progress_beyond_the_end_is_the_end():
    at_end = learning_rate(1.0, peak=1.0, schedule="poly", warmup=0.03)
    assert learning_rate(1.7, peak=1.0, schedule="poly", warmup=0.03) == at_end


def test_a_long_training_reaches_the_limit_and_a_short_one_a_share_of_its_length():
    assert ema_decay(250_000, progress=1.0, limit=0.999) == pytest.approx(0.999)
    assert ema_decay(1000, progress=1.0, limit=0.999) == pytest.approx(1 - 1 / 30)
    assert ema_decay(10, progress=1e-4, limit=0.999) == pytest.approx(1 - 9 / 20)


def test_the_first_step_is_taken_whole_and_zero_turns_averaging_off():
    assert ema_decay(1, progress=0.0, limit=0.999) == 0.0
    assert ema_decay(5000, progress=0.5, limit=0.0) == 0.0
