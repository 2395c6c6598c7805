"""Train several configurations in a given time, then select the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from decathlete.core.choices import Configuration
from decathlete.core.signatures import accepts_fields_of
from decathlete.errors import CasesFailedError
from decathlete.training.config import TrainConfig
from decathlete.workflows.fold import FoldPipeline, PipelineOptions
from decathlete.workflows.folds import FoldSelection
from decathlete.workflows.selection.result import SelectResult
from decathlete.workflows.selection.select import (
    DEFAULT_MAX_MEMBERS,
    PREDICTIONS,
    SELECTED,
    check_metrics,
    select,
)
from decathlete.workflows.study import Study
from decathlete.workflows.train_jobs import train_jobs
from decathlete.workflows.training_jobs import AUTO, parse_configurations


@dataclass(frozen=True, kw_only=True)
class ConfigurationsResult:
    """The results of several configurations.

    Attributes:
        selection: the selected model, its scores and report.
        predictions: folder of the test images, predicted by the selected model, if the dataset has any.
        failed_tests: the error that lists test images which could not be predicted.
    """

    selection: SelectResult
    predictions: Path | None
    failed_tests: CasesFailedError | None = None


@accepts_fields_of(FoldPipeline)
def run_configurations(
    task: str | Path,
    *,
    configurations: str | Sequence[str] = AUTO,
    folds: str | Sequence[int] | None = None,
    total_time_s: float | None = None,
    max_members: int = DEFAULT_MAX_MEMBERS,
    config_2d: TrainConfig | None = None,
    **options: Unpack[PipelineOptions],
) -> ConfigurationsResult:
    """Train every fold of several configurations, select the best one or pair, and predict the test images with it.

    After an interruption, the same call resumes: finished folds are not trained again.

    Args:
        task: as in :func:`decathlete.run`.
        configurations: names separated by commas or in a list; ``"auto"``: those that the images justify, without
            those that are not worth their share of the time.
        folds: as in :func:`decathlete.cross_validate`.
        total_time_s: time of everything, seconds. What is left beside preparing, scoring and selecting is divided
            equally among the trainings; trainings that were started before keep their time. If other work takes longer
            than expected, later trainings get less, and ``"auto"`` leaves out configurations; if it takes less time,
            later trainings get it. ``None``: each training ends as ``config`` says.
        max_members: see :func:`decathlete.select`.
        config_2d: settings of 2D trainings; ``None``: ``config`` of ``options``.
        options: as in :func:`decathlete.run`, without ``dims`` and ``configuration``.

    Raises:
        OptionError: unknown configurations or folds, or too little time for them.
        FoldsFailedError: some trainings failed; the others are kept, and nothing is selected.
        DecathleteError: preparing the dataset or the selection failed.
        InterruptedRunError: a signal stopped the work; finished results are kept.
    """
    named = parse_configurations(configurations)  # a wrong name is an error before any work
    pipeline = FoldPipeline(task=task, **options)
    check_metrics(pipeline.metrics)
    study = Study(
        pipeline,
        config_2d=config_2d or pipeline.config,
        total_time_s=total_time_s,
        folds=FoldSelection.parse(folds),
        max_members=max_members,
        named=named,
    )
    jobs = study.plan_jobs()
    pipeline.check_predictions(study.results / SELECTED / PREDICTIONS)
    return _select(pipeline, train_jobs(study, jobs), max_members=max_members)


def _select(
    pipeline: FoldPipeline, configurations: Sequence[Configuration], *, max_members: int
) -> ConfigurationsResult:
    """Select the best configuration or pair, and predict the test images with it."""
    selected = select(
        [pipeline.workspace.results_folder(pipeline.task, name) for name in configurations],
        dataset_root=pipeline.workspace.dataset(pipeline.task),
        options=pipeline.predict_options,
        max_members=max_members,
        group_by=pipeline.plan_options.group_by,
        metrics=pipeline.metrics,
        workers=pipeline.workers,
        overwrite=True,  # it follows from the folds, as the scores of a cross-validation do
        keep_same=True,
        reporter=pipeline.reporter,
    )
    predictions, failed = pipeline.predict_tests([selected.folder], selected.folder / PREDICTIONS)
    return ConfigurationsResult(selection=selected, predictions=predictions, failed_tests=failed)
