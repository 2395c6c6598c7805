"""A configuration that begins late gets less time than was planned, all its folds the same, and a warning says so."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from decathlete.training.config import TrainConfig
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.jobs_progress import JobsProgress
from decathlete.workflows.progress import ProgressReporter
from decathlete.workflows.run_configurations import _Study
from decathlete.workflows.training_jobs import Job, JobState
from decathlete.workflows.workspace import Workspace

JOBS = [Job(configuration=name, fold=fold) for name in ("2d", "3d") for fold in range(2)]
PLANNED_S = 212.0


class SimulatedClock:
    """A clock that moves only when a test moves it."""

    now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def times_of_3d(folder: Path, *, scoring_s: float) -> tuple[list[float | None], list[float | None]]:
    """Return the times of the 3D trainings after both 2D ones: in their settings, and as the table shows them."""
    clock = SimulatedClock()
    (folder / "data" / "Balls").mkdir(parents=True)
    workspace = Workspace(data=folder / "data", prepared=folder / "prepared", results=folder / "results")
    study = _Study(FoldPipeline(task="Balls", workspace=workspace), TrainConfig(), 1000, clock=clock)
    progress = JobsProgress([JobState(job=job, max_time_s=PLANNED_S) for job in JOBS], ProgressReporter(), clock=clock)
    for job in JOBS[:2]:
        progress.begin(job)
        progress.training()
        clock.now_s += PLANNED_S
        progress.on_step(9, 1.0)
        clock.now_s += scoring_s
        progress.finish(job, dice=0.9)
    configs = {job: TrainConfig(max_time_s=PLANNED_S) for job in JOBS[2:]}
    kept = study._within_time("3d", configs, progress)
    return [config.max_time_s for config in kept.values()], [state.max_time_s for state in progress.states[2:]]


@pytest.mark.parametrize(("scoring_s", "expected"), [(10, PLANNED_S), (30, 168.0), (150, PLANNED_S / 2)])
def test_a_late_configuration_gets_the_time_that_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, scoring_s: float, expected: float
) -> None:
    with caplog.at_level(logging.WARNING, logger="decathlete"):
        times, shown = times_of_3d(tmp_path, scoring_s=scoring_s)
    assert times == shown == [expected] * 2
    warned = "3d: each training gets" in caplog.text
    assert warned == (expected < PLANNED_S)
