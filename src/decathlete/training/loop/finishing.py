"""The last steps of a training that a signal stopped: the learning rate falls to zero within seconds.

They are made after the checkpoint was written, with what the process holds in memory, and change no file that a
resumption reads. Their averaged weights become the model of the stopped run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from decathlete.training.config import TrainConfig
from decathlete.training.loop.state import RunState
from decathlete.training.loop.stop_criterion import STEP_MARGIN
from decathlete.training.objective.ema import ema_decay

FEW_STEPS = 20
"""With fewer, a model is little more than the random weights that it began with."""
FINISHING_S = 20.0
"""Longest time of these steps, seconds: most systems kill a process 30 s or more after SIGTERM."""
FINISHING_SHARE = 0.1
"""Of the steps made so far that these steps are, at most."""
WINDOW_SHARE = 0.25
"""Longest averaging window, share of these steps: a longer one would average weights of the high rate."""


@dataclass(frozen=True, kw_only=True)
class Finishing:
    """The steps that anneal a stopped training.

    Attributes:
        first_step: number of steps that were made when the training stopped.
        began_s: elapsed seconds then.
        stopped_at: share of the planned training that was made, 0..1.
        n_steps: number of steps, if the time suffices.
        learning_rate: of the first step; it falls linearly to zero.
        seconds: time for the steps.
    """

    first_step: int
    began_s: float
    stopped_at: float
    n_steps: int
    learning_rate: float
    seconds: float = FINISHING_S

    @classmethod
    def make(cls, state: RunState, config: TrainConfig, *, learning_rate: float) -> Self | None:
        """Return the last steps of the training in ``state``; ``None`` if it has not made enough for a model."""
        if state.step - state.skipped < FEW_STEPS:
            return None
        n_steps = max(1, round(FINISHING_SHARE * state.step))
        if config.total_steps is not None:  # loaders have no batches after the last planned step
            n_steps = min(n_steps, config.total_steps - state.step)
        return cls(
            first_step=state.step,
            began_s=state.elapsed_s,
            stopped_at=state.progress,
            n_steps=n_steps,
            learning_rate=learning_rate,
        )

    def expected_s(self, state: RunState) -> float:
        """Return how many seconds the steps will take."""
        return min(self.seconds, self.n_steps * state.step_s)

    def progress(self, state: RunState) -> float:
        """Return the progress of these steps, 0..1: by their number or by the time, whichever is further."""
        by_steps = (state.step - self.first_step) / max(self.n_steps, 1)
        return min(max(by_steps, (state.elapsed_s + state.step_s - self.began_s) / self.seconds), 1.0)

    def finished(self, state: RunState) -> bool:
        """Return whether all steps are made, or another one could end too late."""
        late = state.elapsed_s + STEP_MARGIN * state.step_s > self.began_s + self.seconds
        return state.step >= self.first_step + self.n_steps or late

    def rate(self, state: RunState) -> float:
        """Return the learning rate of the next step."""
        return self.learning_rate * (1.0 - self.progress(state))

    def average_decay(self, state: RunState, *, limit: float) -> float:
        """Return the decay of the averaged weights: that of a training which ends with these steps."""
        if limit <= 0.0:
            return 0.0
        total = self.first_step + self.n_steps
        window = max(WINDOW_SHARE * self.n_steps, 1.0)
        return min(ema_decay(state.step, progress=state.step / total, limit=limit), 1.0 - 1.0 / window)
