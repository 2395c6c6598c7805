"""Epochs by steps and by time: a simulated clock stands for the machine."""

from __future__ import annotations

import random

import pytest

from decathlete.training.config import TrainConfig
from decathlete.training.loop.state import RunState
from decathlete.training.loop.stop_criterion import (
    VALIDATION_SHARE,
    CoarsePart,
    StepLimit,
    TimeLimit,
    leave_coarse_grid,
    make_stop_criterion,
)
from decathlete.training.reporting.records import EpochRecord


def record(state: RunState) -> EpochRecord:
    return EpochRecord(
        epoch=state.epoch, step=state.step, seconds=1, elapsed=1, train_loss=1, learning_rate=1, patches_per_second=1
    )


def test_steps_make_epochs_and_progress():
    budget = StepLimit(steps_per_epoch=3, n_epochs=2)
    state = RunState()
    seen = []
    while not budget.finished(state):
        state.count_step(1.0)
        seen.append((round(budget.progress(state), 3), budget.epoch_over(state)))
        if budget.epoch_over(state):
            state.close_epoch(record(state), elapsed_s=0.0)
    assert seen == [(0.167, False), (0.333, False), (0.5, True), (0.667, False), (0.833, False), (1.0, True)]
    assert state.epoch == 2


def test_validation_every_few_epochs_and_after_the_last():
    budget = StepLimit(steps_per_epoch=1, n_epochs=5, val_every=2)
    due = []
    state = RunState()
    for _ in range(5):
        state.count_step(1.0)
        due.append(budget.validation_due(state))
        state.close_epoch(record(state), elapsed_s=0.0)
    assert due == [False, True, False, True, True]


def simulate(
    max_time_s: float,
    *,
    step_s: float,
    case_s: float,
    save_s: float = 0.1,
    jitter: float = 0.3,
    coarse: CoarsePart | None = None,
    first_case_share: float = 1.0,
):
    """Train on a made-up clock; the state, elapsed seconds after the last epoch's validation and save, progress.

    ``case_s`` is the time of a case on the grid at the beginning, of which the first takes ``first_case_share``.
    """
    rng = random.Random(0)
    budget = TimeLimit(max_time_s, n_slices=20, coarse=coarse)
    state, now, progress = RunState(), 0.5, []
    while not budget.finished(state):
        if coarse is not None and state.choose_grid(coarse.share, n_epochs=20):
            leave_coarse_grid(state, budget, coarse, most=50)
            case_s *= coarse.times_larger
        while True:
            duration = step_s * (1 + rng.uniform(-jitter, jitter))
            now += duration
            state.time_step(elapsed_s=now, step_s=duration)
            state.count_step(1.0)
            state.progress = budget.progress(state)
            progress.append(state.progress)
            if budget.epoch_over(state):
                break
        validated = budget.validation_due(state)
        costs_s = []
        if validated and state.val_cases is None:
            timed = first_case_share * case_s
            costs_s.append(timed)
            state.val_spent_s += timed
            state.val_cases, state.val_every = budget.plan_validation(state, seconds_per_case=timed, most=50)
            state.val_cost_s = timed * state.val_cases
            validated = state.val_cases > 1 and budget.validation_due(state)  # one case is validated already
        if validated:
            state.val_cost_s = state.val_cases * case_s
            state.val_spent_s += state.val_cost_s
            costs_s.append(state.val_cost_s)
        now += sum(costs_s)
        now += save_s
        state.save_cost_s = save_s
        closed = record(state).revised(coarse=state.coarse, mean_dice=0.5 if costs_s else None)
        state.close_epoch(closed, elapsed_s=now)
    return state, now + 2 * save_s, progress


@pytest.mark.parametrize("step_s", [0.02, 0.5, 3.0])
@pytest.mark.parametrize("case_s", [0.01, 0.2, 4.0])
@pytest.mark.parametrize("max_time_s", [60.0, 1200.0])
def test_time_ends_when_it_should(max_time_s, step_s, case_s):
    state, ended_s, progress = simulate(max_time_s, step_s=step_s, case_s=case_s)
    assert ended_s <= max_time_s
    assert ended_s >= 0.75 * max_time_s
    assert progress == sorted(progress)
    assert progress[0] < 0.2
    assert progress[-1] > 0.9
    assert state.val_spent_s <= VALIDATION_SHARE * max_time_s + case_s


def test_a_case_that_takes_much_of_the_time_is_not_validated_for_its_time():
    budget = TimeLimit(100.0, n_slices=20)
    assert budget.may_time_validation(15.0)
    assert not budget.may_time_validation(25.0)


@pytest.mark.parametrize("times_larger", [4.0, 8.0, 16.0])
@pytest.mark.parametrize("case_s", [0.05, 0.6, 3.0])
@pytest.mark.parametrize("first_case_share", [1.0, 0.3])
def test_validations_on_the_coarse_grid_leave_time_for_later_ones(times_larger, case_s, first_case_share):
    """Of 60 s for validation, one later case takes up to 48 s; the case that is timed may be a small one."""
    coarse = CoarsePart(share=0.5, times_larger=times_larger)
    state, ended_s, progress = simulate(
        600.0, step_s=0.5, case_s=case_s, coarse=coarse, first_case_share=first_case_share
    )
    validated = [[r for r in state.history if r.coarse == on and r.mean_dice is not None] for on in (True, False)]
    assert all(validated)
    assert state.history[-1].mean_dice is not None, "the validation at the end tells what was learned"
    assert 0.75 * 600 <= ended_s <= 600
    assert progress == sorted(progress)
    assert state.val_spent_s <= VALIDATION_SHARE * 600 + 1e-6


def test_without_a_validation_on_the_coarse_grid_one_case_is_timed_on_the_next():
    budget, state = TimeLimit(100.0, n_slices=20), RunState()
    leave_coarse_grid(state, budget, CoarsePart(share=0.5, times_larger=8.0), most=5)
    assert (state.val_cases, state.val_cost_s) == (None, 0.0)


def test_epochs_are_slices_of_the_time():
    state, _, _ = simulate(1200.0, step_s=0.5, case_s=0.2)
    assert 18 <= state.epoch <= 21
    assert state.val_cases is not None
    assert state.val_cases * 0.2 <= 1200 / 20 * 0.08


def test_no_case_fits_into_a_slice_so_one_is_validated_now_and_then():
    cases, every = TimeLimit(100.0, n_slices=20).plan_validation(RunState(), seconds_per_case=1.0, most=30)
    assert (cases, every) == (1, 3)


def test_one_step_is_made_however_short_the_time():
    budget = TimeLimit(0.001, n_slices=20)
    state = RunState(elapsed_s=5.0)
    assert not budget.finished(state)
    assert not budget.epoch_over(state)
    state.count_step(1.0)
    assert budget.finished(state)


def test_the_config_chooses():
    assert isinstance(make_stop_criterion(TrainConfig(max_time_s=5)), TimeLimit)
    assert isinstance(make_stop_criterion(TrainConfig(epochs=5)), StepLimit)
