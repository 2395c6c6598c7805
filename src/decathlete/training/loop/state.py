"""The state of a training. Together with the weights, it makes an exact resumption possible."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from decathlete.evaluation.metric_info import UNLEARNED_DICE
from decathlete.training.reporting.records import EpochRecord

SMOOTHING = 0.9
LATE_SHARE = 0.8
"""Share of a training's steps from which on a validation tells how it ended. A short training may be validated at its
beginning alone."""

Outcome = Literal["running", "interrupted", "complete"]

_STORED_NAMES = {"plateau_factor": "lowered", "validations_on_plateau": "since_lowered"}
"""Field -> its name in checkpoints, where that differs."""


@dataclass(kw_only=True)
class RunState:
    """Counters and running values; equal on all ranks after every step.

    Attributes:
        epoch: epochs closed (steps made, validated, logged).
        step: steps made or skipped, of the whole training: the next step's number.
        epoch_start_step, epoch_start_s: step and elapsed seconds at which the open epoch began.
        elapsed_s: seconds inside ``train``, those before a resumption included.
        progress: 0..1, never falling.
        coarse: whether the open epoch uses the coarse grid on which the plan lets the training begin.
        step_s: duration of recent steps, an upper estimate, seconds.
        skipped: steps skipped in all, in the open epoch and in a row.
        val_cases: held-out cases swept at each validation; ``None`` until the first with a time budget.
        val_every: epochs between validations.
        val_cost_s, val_spent_s: of the last validation (when the coarse grid was left: expected of the next), and of
            all, seconds.
        save_cost_s: of writing a checkpoint.
        smoothed_dice: exponential average of the mean Dice, for ``patience``.
        plateau_factor: ``plateau``: factor of the peak learning rate after the plateaus so far.
        validations_on_plateau: ``plateau``: validations without a better smoothed Dice since the learning rate was last
            lowered, or since the last better one.
        outcome: whether training continues.
        stopped_by: the signal for which all ranks have agreed to stop; 0: none.
    """

    epoch: int = 0
    step: int = 0
    epoch_start_step: int = 0
    epoch_start_s: float = 0.0
    elapsed_s: float = 0.0
    progress: float = 0.0
    coarse: bool = False
    step_s: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    skipped: int = 0
    skipped_in_epoch: int = 0
    skipped_in_a_row: int = 0
    val_cases: int | None = None
    val_every: int = 1
    val_cost_s: float = 0.0
    val_spent_s: float = 0.0
    save_cost_s: float = 0.0
    best_dice: float | None = None
    best_epoch: int | None = None
    smoothed_dice: float | None = None
    best_smoothed_dice: float | None = None
    epochs_without_better: int = 0
    plateau_factor: float = 1.0
    validations_on_plateau: int = 0
    outcome: Outcome = "running"
    stopped_by: int = 0
    history: list[EpochRecord] = field(default_factory=list)

    @property
    def steps_in_epoch(self) -> int:
        """Number of steps in the open epoch."""
        return self.step - self.epoch_start_step

    @property
    def train_loss(self) -> float:
        """Mean over the open epoch's steps that were not skipped; NaN if all were."""
        return self.loss_sum / self.loss_count if self.loss_count else float("nan")

    def unlearned_structures(self) -> list[str]:
        """Return the structures that a validation at the end found not learned; none without such a validation."""
        validated = [record for record in self.history if record.dice]
        if not validated or validated[-1].step < LATE_SHARE * self.step:
            return []
        return [name for name, dice in validated[-1].dice.items() if dice is not None and dice < UNLEARNED_DICE]

    def choose_grid(self, share: float, *, n_epochs: int) -> bool:
        """Choose the grid of an epoch that begins: the coarse one if it ends within the ``share`` of the coarse start.

        Returns:
            Whether the training has left the coarse grid.
        """
        before = self.coarse
        end = (math.floor(self.progress * n_epochs + 1e-6) + 1) / n_epochs  # an epoch of a time limit begins a bit late
        self.coarse = end <= share + 1e-6
        return before and not self.coarse

    def count_step(self, loss: float | None) -> None:
        """Count a step made with ``loss``, or skipped (``None``)."""
        self.step += 1
        if loss is None:
            self.skipped += 1
            self.skipped_in_epoch += 1
            self.skipped_in_a_row += 1
        else:
            self.loss_sum += loss
            self.loss_count += 1
            self.skipped_in_a_row = 0

    def time_step(self, *, elapsed_s: float, step_s: float) -> None:
        """Update the step-time estimate: it rises immediately, falls slowly, and forgets the first step's warm-up."""
        self.elapsed_s = elapsed_s
        slow = 0.9 * self.step_s + 0.1 * step_s if self.step > 1 else 0.0
        self.step_s = max(step_s, slow)

    def update_best(self, mean_dice: float | None) -> bool:
        """Record the open epoch's mean Dice; return whether it is the best so far."""
        if mean_dice is None:
            return False
        last = self.smoothed_dice
        self.smoothed_dice = mean_dice if last is None else SMOOTHING * last + (1 - SMOOTHING) * mean_dice
        better = self.best_smoothed_dice is None or self.smoothed_dice > self.best_smoothed_dice
        self.best_smoothed_dice = self.smoothed_dice if better else self.best_smoothed_dice
        self.epochs_without_better = 0 if better else self.epochs_without_better + 1
        if self.best_dice is not None and mean_dice <= self.best_dice:
            return False
        self.best_dice, self.best_epoch = mean_dice, self.epoch
        return True

    def lower_on_plateau(self, *, factor: float, patience: int) -> None:
        """Lower the learning rate if more than ``patience`` validations had no better Dice."""
        self.validations_on_plateau = self.validations_on_plateau + 1 if self.epochs_without_better else 0
        if self.validations_on_plateau > patience:
            self.plateau_factor *= factor
            self.validations_on_plateau = 0

    def close_epoch(self, record: EpochRecord, *, elapsed_s: float) -> None:
        """Close the open epoch with ``record`` and begin the next."""
        self.history.append(record)
        self.epoch += 1
        self.epoch_start_step, self.epoch_start_s = self.step, elapsed_s
        self.elapsed_s = elapsed_s
        self.loss_sum, self.loss_count, self.skipped_in_epoch = 0.0, 0, 0

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values, for a checkpoint that is read without unpickling."""
        values = {_STORED_NAMES.get(f.name, f.name): getattr(self, f.name) for f in fields(self) if f.name != "history"}
        return values | {"history": [record.model_dump() for record in self.history]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Make a state from the values of ``to_dict``."""
        names = {stored: name for name, stored in _STORED_NAMES.items()}
        history = [EpochRecord.model_validate(record) for record in values["history"]]
        return cls(**({names.get(key, key): value for key, value in values.items()} | {"history": history}))


class Clock:
    """Elapsed seconds inside ``train``, including those before a resumption.

    Args:
        started: reading of ``clock`` when ``train`` was called; the processes of one machine share that clock.
        carried_s: seconds of the run before it was resumed.
        clock: returns the current time, seconds.
    """

    def __init__(self, started: float, *, carried_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._zero = started - carried_s
        self._clock = clock

    def elapsed(self) -> float:
        """Return the elapsed seconds."""
        return self._clock() - self._zero
