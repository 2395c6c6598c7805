"""What a resumed run knows of the one before."""

from __future__ import annotations

import math

from decathlete.training.loop.state import RunState
from decathlete.training.reporting.records import EpochRecord


def record(epoch: int) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        step=3,
        seconds=1,
        elapsed=1,
        train_loss=0.5,
        learning_rate=1e-3,
        dice={"a": None, "b": 0.25},
        patches_per_second=2,
    )


def test_round_trip_through_plain_values():
    state = RunState(epoch=1, step=7, loss_sum=1.25, best_dice=0.5, history=[record(0)], stopped_by=15)
    assert RunState.from_dict(state.to_dict()) == state


def test_the_plateau_is_stored_by_its_names_in_checkpoints():
    state = RunState(plateau_factor=0.25, validations_on_plateau=2)
    stored = state.to_dict()
    assert (stored["lowered"], stored["since_lowered"]) == (0.25, 2)
    assert RunState.from_dict(stored) == state


def test_skipped_steps_are_counted_and_left_out_of_the_mean():
    state = RunState()
    for loss in (1.0, None, None, 2.0, None):
        state.count_step(loss)
    assert (state.step, state.skipped, state.skipped_in_a_row, state.train_loss) == (5, 3, 1, 1.5)
    state.close_epoch(record(0), elapsed_s=1.0)
    assert (state.skipped, state.skipped_in_epoch, state.steps_in_epoch) == (3, 0, 0)
    assert math.isnan(state.train_loss)


def test_the_best_epoch_is_by_dice_and_patience_by_its_smoothed_course():
    state = RunState()
    best = []
    for epoch, dice in enumerate([0.5, 0.7, 0.6, 0.1, None, 0.2, 0.8]):
        state.epoch = epoch
        best.append(state.update_best(dice))
    assert best == [True, True, False, False, False, False, True]
    assert (state.best_dice, state.best_epoch) == (0.8, 6)
    assert state.epochs_without_better == 3, "the smoothed course, 0.49 at the end, has not reached 0.53 again"
    assert state.smoothed_dice < state.best_smoothed_dice


def test_patience_counts_validated_epochs_only():
    state = RunState()
    for dice in (0.5, 0.4, None, 0.3):
        state.update_best(dice)
    assert state.epochs_without_better == 2


def test_a_plateau_lowers_the_rate_again_and_again_and_a_better_dice_counts_anew():
    state, factors = RunState(), []
    for dice in (0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.9, 0.9, 0.1, 0.1, 0.1):
        state.update_best(dice)
        state.lower_on_plateau(factor=0.5, patience=2)
        factors.append(state.plateau_factor)
    assert factors == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.125]


def test_the_step_estimate_rises_at_once_and_forgets_the_warm_up():
    state = RunState()
    for step, seconds in enumerate((9.0, 1.0, 1.0, 5.0, 1.0)):
        state.step = step
        state.time_step(elapsed_s=0, step_s=seconds)
        if step == 1:
            assert state.step_s == 1.0
        if step == 3:
            assert state.step_s == 5.0
    assert 4 < state.step_s < 5


def test_a_validation_at_the_beginning_does_not_tell_what_a_training_has_learned():
    early = record(1).revised(dice={"liver": 0.01}, step=4)
    assert RunState(history=[early, record(9)], step=100).unlearned_structures() == []
    assert RunState(history=[early], step=5).unlearned_structures() == ["liver"]


def test_unlearned_structures_are_those_of_the_last_validation():
    last = record(1).revised(dice={"liver": 0.93, "vein": 0.02, "absent": None, "bile": 0.0})
    state = RunState(history=[record(0).revised(dice={"liver": 0.01}), last, record(2).revised(dice={})])
    assert state.unlearned_structures() == ["vein", "bile"]
    assert RunState().unlearned_structures() == []


def test_epochs_that_end_within_the_coarse_start_use_the_coarse_grid():
    state = RunState()
    grids, left = [], []
    for epoch in range(8):
        state.progress = epoch / 8
        left.append(state.choose_grid(0.5, n_epochs=8))
        grids.append(state.coarse)
    assert grids == [True] * 4 + [False] * 4
    assert left == [False] * 4 + [True] + [False] * 3


def test_epochs_of_a_time_limit_begin_a_little_late():
    state, grids = RunState(), []
    for epoch in range(20):
        state.progress = epoch / 20 + 0.01
        state.choose_grid(0.5, n_epochs=20)
        grids.append(state.coarse)
    assert grids == [True] * 10 + [False] * 10


def test_a_training_of_one_epoch_has_no_coarse_start():
    state = RunState()
    assert not state.choose_grid(0.5, n_epochs=1)
    assert not state.coarse
