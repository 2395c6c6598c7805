"""How a workflow reports its progress: silently by default; the command line shows bars, a log gets lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from decathlete.core.progress import CaseProgress
from decathlete.planning.plan import Plan
from decathlete.training.reporting.progress import TrainingProgress

if TYPE_CHECKING:
    from decathlete.workflows.training_jobs import JobState

__all__ = ["CaseProgress", "ProgressReporter"]


class ProgressReporter:
    """Receives the steps, the plan, the cases and the epochs of a workflow; this class ignores all of them."""

    def step(self, title: str) -> None:
        """Report that a step of the work begins."""

    def plan(self, plan: Plan) -> None:
        """Report the plan."""

    def cases(self, doing: str) -> CaseProgress | None:  # noqa: ARG002
        """Return the function that is called after each finished case of a step; ``None``: none is called.

        Args:
            doing: the step, a verb such as ``"predict"``.
        """
        return None

    def training(self) -> TrainingProgress | None:
        """Return the object that receives the steps and epochs of the training; ``None``: they are logged."""
        return None

    def jobs(self, states: Sequence[JobState]) -> None:
        """Report the states of all trainings of several configurations, whenever one changes."""

    def jobs_left(self, seconds: float | None) -> None:
        """Report the seconds until a model is selected, before each report of the states; ``None``: not known yet."""

    def jobs_end(self) -> None:
        """Report that these trainings have ended."""
