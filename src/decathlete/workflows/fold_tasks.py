"""Run folds one after the other in this process, or as tasks of an executor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch

from decathlete.core.locks import locked_folder
from decathlete.core.parallel import CaseExecutor
from decathlete.errors import ClusterError, InterruptedRunError
from decathlete.workflows.budget import fold_needs
from decathlete.workflows.fold import FoldPipeline, FoldResult
from decathlete.workflows.progress import ProgressReporter
from decathlete.workflows.workspace import FoldName

FoldOutcome = FoldResult | Exception
Fold = TypeVar("Fold", bound=FoldName)


def run_folds(
    pipeline: FoldPipeline, folds: Sequence[Fold], *, plan_time_s: float | None = None
) -> Iterator[tuple[Fold, FoldOutcome]]:
    """Run folds of a prepared dataset; yield the result or the error of each when it ends.

    With an executor as the ``workers`` of the pipeline, each fold is one task in a process of its own, and several run
    at the same time.

    Args:
        plan_time_s: see :func:`decathlete.workflows.train.train`.

    Raises:
        InterruptedRunError: a signal stopped this process; finished results are kept.
    """
    if isinstance(pipeline.workers, int):
        for fold in folds:
            yield fold, attempt_fold(fold, pipeline, plan_time_s=plan_time_s)
    else:
        yield from _run_elsewhere(pipeline, folds, pipeline.workers, plan_time_s)


def attempt_fold(fold: FoldName, pipeline: FoldPipeline, *, plan_time_s: float | None = None) -> FoldOutcome:
    """Run one fold; return its error, even that of a bug: it must not cost hours of the other folds.

    Args:
        plan_time_s: see :func:`decathlete.workflows.train.train`.
    """
    try:
        return pipeline.run_fold(fold, plan_time_s=plan_time_s)
    except InterruptedRunError:
        raise
    except Exception as problem:
        return problem


def _run_elsewhere(
    pipeline: FoldPipeline, folds: Sequence[Fold], executor: CaseExecutor, plan_time_s: float | None
) -> Iterator[tuple[Fold, FoldOutcome]]:
    needs = fold_needs(pipeline.config, pipeline.fold_resources)
    prepared = pipeline.workspace.prepared_folder(pipeline.task, pipeline.which)
    results = pipeline.workspace.results_folder(pipeline.task, pipeline.which)
    with locked_folder(results, wait_for="written its scores to"):  # others would remove the files of the check
        executor.require_shared(reads=[prepared], writes=[results])
    sent = replace(
        pipeline,
        task=pipeline.workspace.dataset(pipeline.task),  # a path, also where a number or name was given
        workers=1,
        reporter=ProgressReporter(),
    )
    by_name = {f"fold {fold}": fold for fold in folds}
    run = partial(_run_sent_fold, pipeline=sent, plan_time_s=plan_time_s)
    for outcome in executor.map(run, by_name, needs=needs):
        fold = by_name[outcome.case_id]
        yield fold, _localize(outcome.value or outcome.cause or ClusterError(outcome.error or "failed"), pipeline, fold)


def _run_sent_fold(fold: FoldName, pipeline: FoldPipeline, plan_time_s: float | None) -> FoldOutcome:
    """Run a fold in a process of its own, which may use as many threads as its worker has."""
    return attempt_fold(fold, replace(pipeline, workers=torch.get_num_threads()), plan_time_s=plan_time_s)


def _localize(outcome: FoldOutcome, pipeline: FoldPipeline, fold: FoldName) -> FoldOutcome:
    """Name the files of a result as this process does: workers get absolute paths."""
    if isinstance(outcome, Exception):
        return outcome
    folder = pipeline.workspace.run_folder(pipeline.task, pipeline.which, fold)
    return replace(outcome, folder=folder, report=folder / outcome.report.name)
