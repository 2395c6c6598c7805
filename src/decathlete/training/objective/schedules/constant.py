"""A constant learning rate after a warm-up."""

from __future__ import annotations

from decathlete.training.objective.schedules import SCHEDULES, WarmupSchedule


@SCHEDULES.register("constant")
class ConstantSchedule(WarmupSchedule):
    """The rate stays at its peak after the warm-up."""

    def after_warmup(self, progress: float, *, n_epochs: int, plateau_factor: float) -> float:  # noqa: ARG002
        """See :class:`WarmupSchedule`."""
        return 1.0
