"""Cosine annealing with warm restarts (Loshchilov & Hutter, ICLR 2017)."""

from __future__ import annotations

import math

from pydantic import Field

from decathlete.training.objective.schedules import FINAL_SHARE, SCHEDULES, WarmupSchedule, WarmupSettings


@SCHEDULES.register("cosine")
class CosineSchedule(WarmupSchedule):
    """The rate falls along a half cosine, back to the peak after each restart."""

    class Settings(WarmupSettings):
        restarts: int = Field(default=0, ge=0)
        """Number of times that the rate returns to its peak on the way."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.restarts = settings.restarts

    def after_warmup(self, progress: float, *, n_epochs: int, plateau_factor: float) -> float:  # noqa: ARG002
        """See :class:`WarmupSchedule`."""
        fallen = self.since_warmup(progress)
        part = 1.0 if fallen >= 1.0 else math.fmod(fallen * (self.restarts + 1), 1.0)
        return max((1.0 + math.cos(math.pi * part)) / 2, FINAL_SHARE)
