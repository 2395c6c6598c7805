"""Stop criteria: progress and ends of epochs by steps or by time, pure functions of config and state."""

from __future__ import annotations

import math
from typing import Protocol

from decathlete.training.config import TrainConfig
from decathlete.training.loop.state import RunState

VALIDATION_SHARE = 0.1
"""Of a time budget that validation may take, at most."""
PLANNED_VALIDATION_SHARE = 0.08
STEP_MARGIN = 1.25
EARLY_RESERVE_SHARE = 0.01
MOST_RESERVE_SHARE = 0.25
FINAL_SAVES = 3  # last checkpoint, final bundle, best bundle


class StopCriterion(Protocol):
    """Decides when epochs and the training end."""

    def progress(self, state: RunState) -> float:
        """Return the progress: 0 at the start, 1 at the end."""
        ...

    def epoch_over(self, state: RunState) -> bool:
        """Return whether the open epoch has all its steps."""
        ...

    def finished(self, state: RunState) -> bool:
        """Return whether no further step is made."""
        ...

    def validation_due(self, state: RunState) -> bool:
        """Return whether the open epoch is validated once its steps are made."""
        ...

    def plan_validation(self, state: RunState, *, seconds_per_case: float, most: int) -> tuple[int, int]:
        """Return cases per validation and epochs between validations, from the time that one case takes."""
        ...


def make_stop_criterion(config: TrainConfig) -> StopCriterion:
    """Make the criterion of a config: by steps, or by time."""
    if config.max_time_s is not None:
        return TimeLimit(config.max_time_s, n_slices=config.n_epochs)
    return StepLimit(
        steps_per_epoch=config.steps_per_epoch, n_epochs=config.n_epochs, val_every=config.validation.every
    )


class StepLimit:
    """A fixed number of epochs and steps: a function of the step alone, so that a run repeats exactly."""

    def __init__(self, *, steps_per_epoch: int, n_epochs: int, val_every: int = 1) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.n_epochs = n_epochs
        self.val_every = val_every

    def progress(self, state: RunState) -> float:
        """Return the share of the steps that are done, 0..1."""
        return min(state.step / (self.steps_per_epoch * self.n_epochs), 1.0)

    def epoch_over(self, state: RunState) -> bool:
        """Return whether the epoch has made its number of steps."""
        return state.steps_in_epoch >= self.steps_per_epoch

    def finished(self, state: RunState) -> bool:
        """Return whether the steps of all epochs are done."""
        return state.step >= self.steps_per_epoch * self.n_epochs

    def validation_due(self, state: RunState) -> bool:
        """Return whether a validation follows: every ``val_every`` epochs and after the last."""
        return (state.epoch + 1) % self.val_every == 0 or self.finished(state)

    def plan_validation(self, state: RunState, *, seconds_per_case: float, most: int) -> tuple[int, int]:  # noqa: ARG002
        """Return the configured values, because a run that must repeat exactly cannot depend on time."""
        return most, self.val_every


class TimeLimit:
    """A fixed time, including startup, validation and writing the model; epochs are slices of it.

    Validation takes at most ``VALIDATION_SHARE`` of it; the last step ends early enough for what follows it.
    """

    def __init__(self, max_time_s: float, *, n_slices: int) -> None:
        self.max_time_s = max_time_s
        self.n_slices = n_slices

    def deadline(self, state: RunState) -> float:
        """Return the elapsed seconds at which the last step must have ended."""
        known = state.save_cost_s * FINAL_SAVES + (state.val_cost_s if self._affordable(state) else 0.0)
        reserve = max(known, EARLY_RESERVE_SHARE * self.max_time_s)
        return self.max_time_s - min(reserve, MOST_RESERVE_SHARE * self.max_time_s)

    def progress(self, state: RunState) -> float:
        """Return the elapsed share of the time until the deadline; 1 when no further step fits."""
        return min(max(state.progress, (state.elapsed_s + state.step_s) / self.deadline(state)), 1.0)

    def epoch_over(self, state: RunState) -> bool:
        """Return whether the slice of the epoch is over; an epoch has at least one step."""
        deadline = self.deadline(state)
        slice_s = deadline / self.n_slices
        boundary = min((math.floor(state.epoch_start_s / slice_s) + 1) * slice_s, deadline)
        return state.steps_in_epoch > 0 and (state.elapsed_s >= boundary or self.finished(state))

    def finished(self, state: RunState) -> bool:
        """Return whether another step could end after the deadline; at least one step is made."""
        return state.step > 0 and state.elapsed_s + STEP_MARGIN * state.step_s > self.deadline(state)

    def validation_due(self, state: RunState) -> bool:
        """Return whether a validation follows, every few epochs and after the last, if its share of the time allows."""
        if self.finished(state):
            return self._affordable(state)
        return self._affordable(state, times=2) and (state.epoch + 1) % state.val_every == 0

    def plan_validation(self, state: RunState, *, seconds_per_case: float, most: int) -> tuple[int, int]:  # noqa: ARG002
        """Return the cases that fit into a slice's share; if not one fits, one case every few slices."""
        share_s = PLANNED_VALIDATION_SHARE * self.max_time_s / self.n_slices
        fitting = int(share_s / max(seconds_per_case, 1e-6))
        if fitting >= 1:
            return min(fitting, most), 1
        return min(1, most), math.ceil(seconds_per_case / share_s)

    def _affordable(self, state: RunState, *, times: int = 1) -> bool:
        return state.val_spent_s + times * state.val_cost_s <= VALIDATION_SHARE * self.max_time_s
