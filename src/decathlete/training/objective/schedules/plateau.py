"""Steps down when validation stops improving."""

from __future__ import annotations

from pydantic import Field

from decathlete.training.objective.schedules import SCHEDULES, WarmupSchedule, WarmupSettings


@SCHEDULES.register("plateau")
class PlateauSchedule(WarmupSchedule):
    """The rate is multiplied by a factor when the validation's smoothed Dice no longer improves."""

    class Settings(WarmupSettings):
        factor: float = Field(default=0.3, gt=0, lt=1)
        """Factor by which the rate is lowered."""
        patience: int = Field(default=70, ge=0)
        """Validations without a better Dice that are waited for before the rate is lowered."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._plateau = (settings.factor, settings.patience)

    def after_warmup(self, progress: float, *, n_epochs: int, plateau_factor: float) -> float:  # noqa: ARG002
        """See :class:`WarmupSchedule`."""
        return plateau_factor

    @property
    def plateau(self) -> tuple[float, int]:
        """Factor and patience."""
        return self._plateau
