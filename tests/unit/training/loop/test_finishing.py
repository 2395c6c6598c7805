"""The last steps of a stopped training, as numbers."""

from __future__ import annotations

import pytest

from decathlete.training.loop.finishing import Finishing
from decathlete.training.loop.state import RunState
from training_support import tiny_config

TIMED = tiny_config(epochs=None, max_time_s=600.0)


def stopped(step: int, *, step_s: float = 0.1, skipped: int = 0) -> RunState:
    return RunState(step=step, skipped=skipped, step_s=step_s, elapsed_s=step * step_s, progress=0.25)


def make(state: RunState, config=TIMED) -> Finishing:
    finishing = Finishing.make(state, config, learning_rate=0.08)
    assert finishing is not None
    return finishing


def run_to_end(finishing: Finishing, state: RunState) -> list[float]:
    rates = []
    while not finishing.finished(state):
        rates.append(finishing.rate(state))
        state.step += 1
        state.elapsed_s += state.step_s
    return rates


def test_the_rate_falls_to_zero_over_a_tenth_of_the_steps():
    state = stopped(100)
    rates = run_to_end(make(state), state)
    assert len(rates) == 10
    assert rates[0] == pytest.approx(0.08, rel=0.01)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] <= 0.1 * 0.08 + 1e-9


def test_a_long_training_is_finished_within_its_seconds():
    state = stopped(10_000, step_s=0.5)
    finishing, began_s = make(state), state.elapsed_s
    assert finishing.expected_s(state) == 20
    rates = run_to_end(finishing, state)
    assert 15 < state.elapsed_s - began_s <= 20
    assert rates[-1] < 0.1 * 0.08


def test_a_step_longer_than_the_time_is_not_begun():
    state = stopped(50, step_s=30.0)
    assert run_to_end(make(state), state) == []


@pytest.mark.parametrize(("step", "skipped"), [(0, 0), (19, 0), (25, 6)])
def test_too_few_steps_are_not_finished(step, skipped):
    assert Finishing.make(stopped(step, skipped=skipped), TIMED, learning_rate=0.1) is None


def test_no_step_lies_beyond_the_planned_ones():
    config = tiny_config(epochs=2, steps_per_epoch=50)
    assert make(stopped(98), config).n_steps == 2
    assert run_to_end(make(stopped(100), config), stopped(100)) == []


def test_the_average_forgets_the_weights_of_the_high_rate():
    state = stopped(10_000, step_s=0.001)
    finishing, kept = make(state), 1.0
    while not finishing.finished(state):
        state.step += 1
        kept *= finishing.average_decay(state, limit=0.999)
    assert kept < 0.05
    assert finishing.average_decay(state, limit=0.0) == 0.0
