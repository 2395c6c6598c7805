"""Polynomial decay, as in nnU-Net."""

from __future__ import annotations

from pydantic import Field

from decathlete.training.objective.schedules import FINAL_SHARE, SCHEDULES, WarmupSchedule, WarmupSettings


@SCHEDULES.register("poly")
class PolySchedule(WarmupSchedule):
    """The rate falls as ``(1 - progress)^power``; nnU-Net's power is 0.9."""

    class Settings(WarmupSettings):
        power: float = Field(default=0.9, gt=0)
        """Exponent of the decay."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.power = settings.power

    def after_warmup(self, progress: float, *, n_epochs: int, plateau_factor: float) -> float:  # noqa: ARG002
        """See :class:`WarmupSchedule`."""
        return float(max((1.0 - self.since_warmup(progress)) ** self.power, FINAL_SHARE))
