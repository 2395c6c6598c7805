"""``run --configurations --total-time`` divides the time by the plans that the data are then prepared by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from decathlete.planning import resolution as planning_resolution
from decathlete.planning.adaptation import adapt_plan
from decathlete.planning.compute_budget import ComputeBudget
from decathlete.planning.plan import Plan
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.training.config import TrainConfig
from decathlete.workflows import resolution, time_shares
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.folds import FoldSelection
from decathlete.workflows.scoring_time import expected_case_seconds, expected_fold_seconds
from decathlete.workflows.study import Study
from decathlete.workflows.workspace import Workspace

ONE_THREAD = ComputeBudget(device="cpu", threads=1)


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FoldPipeline:
    """A dataset of 5 large balls, on a machine with one slow thread."""
    make_phantoms(tmp_path / "Balls", n_cases=5, shape_ZYX=(72, 71, 73), spacing_ZYX=(1.0, 1.0, 1.0))
    measure = resolution.measure_ceilings

    def measure_and_note(cases: Any, plan: Plan, spacings: Any, **options: Any) -> Any:
        with (tmp_path / "measured.txt").open("a") as notes:
            notes.write(f"{plan.configuration_name} ")
        return measure(cases, plan, spacings, **options)

    def budget(config: TrainConfig, *_: object, **__: object) -> ComputeBudget:
        return replace(ONE_THREAD, max_time_s=config.max_time_s)

    monkeypatch.setattr(planning_resolution, "FEWEST_CASES", 5)
    monkeypatch.setattr(resolution, "measure_ceilings", measure_and_note)
    for module in (resolution, time_shares):
        monkeypatch.setattr(module, "budget_of_folds", budget)
    workspace = Workspace(prepared=tmp_path / "prepared", results=tmp_path / "results")
    return FoldPipeline(task=tmp_path / "Balls", workspace=workspace, workers=1)


def make_study(pipeline: FoldPipeline, total_time_s: float) -> Study:
    return Study(
        pipeline,
        config_2d=pipeline.config,
        total_time_s=total_time_s,
        folds=FoldSelection.parse("0"),
        max_members=1,
        named=["2d", "3d"],
        clock=lambda: 0.0,
    )


def test_scoring_is_estimated_by_the_plan_that_the_data_are_prepared_by(pipeline: FoldPipeline, tmp_path: Path) -> None:
    study = make_study(pipeline, 120)
    jobs = study.plan_jobs()
    (config,) = (config for job, config in jobs.items() if job.configuration == "3d")
    plan = replace(study.pipeline_of("3d"), config=config).prepare().plan
    assert min(plan.network_spacing) > 1
    budget = replace(ONE_THREAD, max_time_s=config.max_time_s)
    expected_s, at_full_resolution_s = (
        expected_fold_seconds(
            expected_case_seconds(
                adapt_plan(of, budget, n_cases=5, warn=False),
                budget,
                pipeline.predict_options.window,
                n_voxels=72 * 71 * 73,
            ),
            1,
        )
        for of in (plan, study._chooser.plan_of("3d"))
    )
    assert study.other.expected_s["3d"] == pytest.approx(expected_s, rel=0.1)
    assert at_full_resolution_s > 1.5 * expected_s
    assert (tmp_path / "measured.txt").read_text() == "2d 3d ", "once for both"


def test_prepared_data_keep_the_grid_that_the_time_is_divided_by(pipeline: FoldPipeline) -> None:
    month_s = 30 * 24 * 3600.0
    before = make_study(pipeline, month_s)
    before.plan_jobs()
    prepared = replace(before.pipeline_of("3d"), config=TrainConfig(max_time_s=60)).prepare()
    assert min(prepared.plan.network_spacing) > 1
    after = make_study(pipeline, month_s)
    after.plan_jobs()
    assert after.other.expected_s["3d"] < before.other.expected_s["3d"] / 1.5
    again = make_study(replace(pipeline, overwrite=True), month_s)
    again.plan_jobs()
    assert again.other.expected_s == before.other.expected_s
