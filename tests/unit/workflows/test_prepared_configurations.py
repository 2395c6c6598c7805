"""Configurations that are compared have the same folds and labels, also where they were prepared by other commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import decathlete
from decathlete import PlanOptions, TrainConfig, Workspace
from decathlete.core.choices import Configuration
from decathlete.dataset.manifest import read_dataset
from decathlete.errors import OutputError
from decathlete.preprocessing.store import PreparedStore
from decathlete.synthetic.phantoms import make_phantoms
from decathlete.workflows.checked_dataset import check_and_split
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.prepared_configurations import CommonFolds, choose_common_folds, plan_preparations
from decathlete.workflows.preprocess import preprocess

IDS = [f"phantom_{number:03d}" for number in range(4)]
LISTED = [{"train": IDS[2:], "val": IDS[:2]}, {"train": IDS[:2], "val": IDS[2:]}]


@pytest.fixture
def pipeline(tmp_path: Path) -> FoldPipeline:
    root = make_phantoms(tmp_path / "set", n_cases=4, shape_ZYX=(12, 12, 12))
    (tmp_path / "mine.json").write_text(json.dumps(LISTED))
    workspace = Workspace(prepared=tmp_path / "prepared", results=tmp_path / "results")
    return FoldPipeline(task=root, workspace=workspace, workers=1)


def prepare(pipeline: FoldPipeline, name: Configuration, options: PlanOptions) -> PreparedStore:
    reuse = options == PlanOptions()
    return preprocess(
        pipeline.task, configuration=name, workspace=pipeline.workspace, options=options, workers=1, reuse=reuse
    )


def agree(pipeline: FoldPipeline) -> CommonFolds:
    return choose_common_folds(pipeline, ["2d", "3d"], read_dataset(Path(pipeline.task)), {})


def test_folds_of_prepared_data_are_those_of_all_configurations(pipeline: FoldPipeline, tmp_path: Path) -> None:
    store = prepare(pipeline, "3d", PlanOptions(splits=tmp_path / "mine.json"))
    folds = agree(pipeline)
    assert folds.splits == store.splits
    assert folds.options("3d", PlanOptions()) == PlanOptions(), "they are used as they are"
    second = prepare(pipeline, "2d", folds.options("2d", PlanOptions()))
    assert second.splits.folds == store.splits.folds
    again = agree(pipeline)
    assert again.splits.folds == store.splits.folds
    assert again.options("2d", PlanOptions()) == PlanOptions()


def test_other_folds_are_rejected_before_any_training(pipeline: FoldPipeline, tmp_path: Path) -> None:
    prepare(pipeline, "3d", PlanOptions(splits=tmp_path / "mine.json"))
    prepare(pipeline, "2d", PlanOptions(n_folds=4))
    with pytest.raises(
        OutputError, match=r"3d was prepared with 2 folds from .*mine.json, 2d with a random split"
    ) as no:
        decathlete.run_configurations(
            pipeline.task, configurations="2d,3d", workspace=pipeline.workspace, workers=1, folds="0-1"
        )
    assert no.value.code == "E-OUTPUT-EXISTS"
    requested = FoldPipeline(task=pipeline.task, workspace=pipeline.workspace, plan_options=PlanOptions(n_folds=3))
    with pytest.raises(
        OutputError, match=r"2d was prepared with a random split into 4 \(seed 12345\), and this command requests a ran"
    ):
        agree(requested)
    assert not (tmp_path / "results").exists()


def test_other_regions_are_rejected_before_any_training(pipeline: FoldPipeline, tmp_path: Path) -> None:
    prepare(pipeline, "3d", PlanOptions(regions="both=1,2;second=2"))
    with pytest.raises(OutputError, match="3d was prepared with other classes or regions than 2d has"):
        decathlete.run_configurations(
            pipeline.task, configurations="2d,3d", workspace=pipeline.workspace, workers=1, folds="0-1"
        )
    assert not (tmp_path / "results").exists()


def test_data_of_another_plan_are_all_named_before_any_training(pipeline: FoldPipeline, tmp_path: Path) -> None:
    prepare(pipeline, "2d", PlanOptions(n_folds=2, overrides=("normalization.0.name=none",)))
    prepare(pipeline, "3d", PlanOptions(n_folds=2, overrides=("target_spacing=2,2,2",)))

    def run(*overrides: str, **changes: Any) -> None:
        options = PlanOptions(n_folds=2, overrides=overrides)
        places = {"workspace": pipeline.workspace, "workers": 1, "folds": "0-1"}
        decathlete.run_configurations(pipeline.task, configurations="2d,3d", plan_options=options, **(places | changes))

    with pytest.raises(OutputError) as no:
        run()
    assert "2d contains data prepared by another plan (different normalization)" in str(no.value)
    assert "3d contains data prepared by another plan (different target_spacing)" in str(no.value)
    assert "--overwrite" in no.value.remedy
    assert no.value.code == "E-OUTPUT-EXISTS"
    timed = TrainConfig(max_time_s=3000.0, device="cpu")  # the planner would choose a spacing; these were set
    with pytest.raises(OutputError, match=r"3d contains data prepared by another plan \(different target_spacing"):
        run(config=timed)
    assert not (tmp_path / "results").exists()


def test_data_of_the_same_plan_are_used(pipeline: FoldPipeline) -> None:
    options = PlanOptions(n_folds=2, overrides=("target_spacing=2,2,2",))
    store = prepare(pipeline, "3d", options)
    dataset = check_and_split(replace(pipeline, plan_options=options), ["2d", "3d"])
    pipelines = {name: replace(pipeline, configuration=name, plan_options=options) for name in ("2d", "3d")}
    plans = plan_preparations(pipelines, dataset.folds, dataset.spec, dataset.fingerprint, begun=[])
    assert plans == {"3d": store.plan}, "2d was not prepared"
