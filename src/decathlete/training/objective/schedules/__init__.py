"""Learning-rate schedules: functions of progress, 0..1. Each module is one schedule, registered by its own name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from pydantic import Field

from decathlete.core.registry import ComponentSettings, Registry

FINAL_SHARE = 1e-3
"""Share of the peak learning rate under which no schedule falls."""


class Schedule(Protocol):
    """A schedule is made with its settings. It follows progress, whether epochs or time measure it."""

    def factor(self, progress: float, *, n_epochs: int, plateau_factor: float) -> float:
        """Return the share of the peak learning rate at ``progress``.

        Args:
            progress: 0 at the start, 1 at the end of the training.
            n_epochs: of the whole training (slices of the time, if time is the limit).
            plateau_factor: what is left of the rate after the plateaus so far, 1 without any.
        """
        ...

    def problems(self, *, n_epochs: int, timed: bool) -> Iterator[str]:
        """Settings that do not fit a training of so many epochs, or of a given time."""
        ...

    @property
    def plateau(self) -> tuple[float, int] | None:
        """Factor and patience of a schedule that lowers the rate on plateaus of the validation's Dice."""
        ...


class WarmupSettings(ComponentSettings):
    """The settings of schedules that begin with a warm-up."""

    warmup: float = Field(default=0.03, ge=0, le=0.5)
    """Share of the training over which the learning rate rises linearly from a hundredth of its peak."""


class BaseSchedule:
    """Base of schedules that fit every training and are not lowered on plateaus."""

    def problems(self, *, n_epochs: int, timed: bool) -> Iterator[str]:  # noqa: ARG002
        """Return the problems of the settings with a training; a schedule without any returns none."""
        yield from ()

    @property
    def plateau(self) -> tuple[float, int] | None:
        """Not lowered on plateaus."""
        return None


class WarmupSchedule(BaseSchedule):
    """Base of schedules with a warm-up: :meth:`after_warmup` is all that they add."""

    Settings: type[WarmupSettings] = WarmupSettings

    def __init__(self, settings: WarmupSettings) -> None:
        self.warmup = settings.warmup

    def factor(self, progress: float, *, n_epochs: int, plateau_factor: float) -> float:
        """See :class:`Schedule`."""
        progress = min(max(progress, 0.0), 1.0)
        if progress < self.warmup:
            return 0.01 + 0.99 * progress / self.warmup
        return self.after_warmup(progress, n_epochs=n_epochs, plateau_factor=plateau_factor)

    def after_warmup(self, progress: float, *, n_epochs: int, plateau_factor: float) -> float:
        """Return the share of the peak at ``progress``, once the warm-up is over."""
        raise NotImplementedError

    def since_warmup(self, progress: float) -> float:
        """Progress since the end of the warm-up, 0..1."""
        return (progress - self.warmup) / (1.0 - self.warmup)


SCHEDULES: Registry[Schedule] = Registry("schedule", package=__name__)
