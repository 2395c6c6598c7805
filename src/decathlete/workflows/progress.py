"""Who is told how long work goes: silent by default; the command line shows bars, a log gets lines."""

from __future__ import annotations

from decathlete.core.progress import CaseProgress
from decathlete.planning.plan import Plan
from decathlete.training.reporting.progress import Progress

__all__ = ["CaseProgress", "ProgressReporter"]


class ProgressReporter:
    """Hears of steps, the plan, cases and epochs; this one lets everything pass."""

    def step(self, title: str) -> None:
        """A step of the work begins."""

    def plan(self, plan: Plan) -> None:
        """The plan is made."""

    def cases(self, doing: str) -> CaseProgress | None:  # noqa: ARG002
        """Who is told of each finished case."""
        return None

    def training(self) -> Progress | None:
        """Who is told of training's steps and epochs."""
        return None
