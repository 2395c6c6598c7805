"""Steps down at given epochs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from decathlete.training.objective.schedules import SCHEDULES, WarmupSchedule, WarmupSettings


@SCHEDULES.register("multistep")
class MultistepSchedule(WarmupSchedule):
    """The rate is multiplied by a factor at each of the given epochs."""

    class Settings(WarmupSettings):
        steps: tuple[Annotated[float, Field(gt=0)], ...] = ()
        """Epochs at which the rate is multiplied; below 1: shares of the training."""
        factor: float = Field(default=0.3, gt=0, lt=1)
        """Factor of each step."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.steps, self.step_factor = settings.steps, settings.factor

    def after_warmup(self, progress: float, *, n_epochs: int, plateau_factor: float) -> float:  # noqa: ARG002
        """See :class:`WarmupSchedule`."""
        shares = (step if step < 1 else step / n_epochs for step in self.steps)
        return float(self.step_factor ** sum(progress >= share for share in shares))

    def problems(self, *, n_epochs: int, timed: bool) -> Iterator[str]:
        """Steps that are missing, or are never reached."""
        if not self.steps:
            yield "the schedule multistep needs steps, the epochs at which the rate falls"
        if timed and any(step >= 1 for step in self.steps):
            yield "with max_time, write steps as shares of the training: 0.5,0.8"
        elif any(step >= n_epochs for step in self.steps):
            yield f"steps from {n_epochs} on are never reached in {n_epochs} epochs"
