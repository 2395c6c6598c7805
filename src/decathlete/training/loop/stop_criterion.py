"""Stop criteria: progress and ends of epochs by steps or by time, pure functions of config and state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from decathlete.planning.plan import Plan
from decathlete.training.config import TrainConfig
from decathlete.training.loop.state import RunState

VALIDATION_SHARE = 0.1
"""Of a time budget that validation may take, at most."""
PLANNED_VALIDATION_SHARE = 0.08
STEP_MARGIN = 1.25
EARLY_RESERVE_SHARE = 0.01
MOST_RESERVE_SHARE = 0.25
FINAL_SAVES = 3  # last checkpoint, final bundle, best bundle


@dataclass(frozen=True, kw_only=True)
class CoarsePart:
    """The part of a training on the coarse grid with which it begins.

    Attributes:
        share: share of the training.
        times_larger: how many times more voxels a case has on the plan's own grid.
    """

    share: float
    times_larger: float


def coarse_part(plan: Plan) -> CoarsePart | None:
    """Return the part of a training on a coarse grid; ``None`` if all of it uses the plan's own."""
    if plan.coarse_start is None:
        return None
    sizes = [math.prod(grid.median_shape) for grid in (plan, plan.on_coarse_grid())]
    return CoarsePart(share=plan.coarse_start.share, times_larger=sizes[0] / sizes[1])


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

    def may_time_validation(self, expected_s: float) -> bool:
        """Return whether one case, which takes about ``expected_s``, is validated for its time."""
        ...

    def plan_validation(self, state: RunState, *, seconds_per_case: float, most: int) -> tuple[int, int]:
        """Return cases per validation and epochs between validations, from the time that one case takes."""
        ...


def leave_coarse_grid(state: RunState, budget: StopCriterion, coarse: CoarsePart, *, most: int) -> None:
    """Plan the validations on the plan's own grid by the time that the last one took on the coarse grid.

    Without a validation so far, one case is timed first.

    Args:
        most: largest number of cases.
    """
    if not state.val_cases:
        return
    case_s = state.val_cost_s / state.val_cases * coarse.times_larger
    state.val_cases, state.val_every = budget.plan_validation(state, seconds_per_case=case_s, most=most)
    state.val_cost_s = case_s * state.val_cases


def make_stop_criterion(config: TrainConfig, *, coarse: CoarsePart | None = None) -> StopCriterion:
    """Make the criterion of a config: by steps, or by time."""
    if config.max_time_s is not None:
        return TimeLimit(config.max_time_s, n_slices=config.n_epochs, coarse=coarse)
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

    def may_time_validation(self, expected_s: float) -> bool:  # noqa: ARG002
        """Return ``True``: validations have no limit."""
        return True

    def plan_validation(self, state: RunState, *, seconds_per_case: float, most: int) -> tuple[int, int]:  # noqa: ARG002
        """Return the configured values, because a run that must repeat exactly cannot depend on time."""
        return most, self.val_every


class TimeLimit:
    """A fixed time, including startup, validation and writing the model; epochs are slices of it.

    Validation takes at most ``VALIDATION_SHARE`` of it, on a coarse grid at most this share of the coarse part, and
    leaves enough for a validation at the end. (The first case is validated to know its time, which may be more.) The
    last step ends early enough for what follows it.
    """

    def __init__(self, max_time_s: float, *, n_slices: int, coarse: CoarsePart | None = None) -> None:
        self.max_time_s = max_time_s
        self.n_slices = n_slices
        self.coarse = coarse

    def deadline(self, state: RunState) -> float:
        """Return the elapsed seconds at which the last step must have ended."""
        last_s = self._last_validation_s(state)
        known = state.save_cost_s * FINAL_SAVES + (last_s if self._affordable(state, last_s) else 0.0)
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
        last_s = self._last_validation_s(state)
        if self.finished(state):
            return self._affordable(state, last_s)
        if (state.epoch + 1) % state.val_every != 0 or not self._affordable(state, state.val_cost_s + last_s):
            return False
        return not state.coarse or self._affordable(state, state.val_cost_s, share=self._coarse_share)

    def may_time_validation(self, expected_s: float) -> bool:
        """Return whether one case fits into twice the share of all validations: the expectation is a rough one."""
        return expected_s <= 2 * VALIDATION_SHARE * self.max_time_s

    def plan_validation(self, state: RunState, *, seconds_per_case: float, most: int) -> tuple[int, int]:  # noqa: ARG002
        """Return the cases that fit into a slice's share; if not one fits, one case every few slices."""
        share_s = PLANNED_VALIDATION_SHARE * self.max_time_s / self.n_slices
        fitting = int(share_s / max(seconds_per_case, 1e-6))
        if fitting >= 1:
            return min(fitting, most), 1
        return min(1, most), math.ceil(seconds_per_case / share_s)

    @property
    def _coarse_share(self) -> float:
        return 1.0 if self.coarse is None else self.coarse.share

    def _last_validation_s(self, state: RunState) -> float:
        """Return the time of the validation at the end, which is on the plan's own grid and at least of one case."""
        if not state.coarse or self.coarse is None or not state.val_cases:
            return state.val_cost_s
        return max(state.val_cost_s, state.val_cost_s / state.val_cases * self.coarse.times_larger)

    def _affordable(self, state: RunState, cost_s: float, *, share: float = 1.0) -> bool:
        return state.val_spent_s + cost_s <= share * VALIDATION_SHARE * self.max_time_s
