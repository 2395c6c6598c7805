"""No schedule: the peak learning rate throughout."""

from __future__ import annotations

from decathlete.core.registry import ComponentSettings
from decathlete.training.objective.schedules import SCHEDULES, BaseSchedule


@SCHEDULES.register("none")
class NoSchedule(BaseSchedule):
    """The rate is the peak from the first step to the last; there is no warm-up either."""

    def __init__(self, settings: ComponentSettings) -> None:
        pass

    def factor(self, progress: float, *, n_epochs: int, plateau_factor: float) -> float:  # noqa: ARG002
        """See :class:`~decathlete.training.objective.schedules.Schedule`."""
        return 1.0
