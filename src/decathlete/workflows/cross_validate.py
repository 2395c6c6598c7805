"""Cross-validation: several folds in turn, their scores together, and the test images by all their models."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from decathlete.core.durations import say_duration
from decathlete.core.files import write_text
from decathlete.core.memory import is_memory_short
from decathlete.core.signatures import accepts_fields_of
from decathlete.errors import CasesFailed, DecathleteError, FoldsFailed, Interrupted
from decathlete.evaluation.cross_validation import CrossValidation
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.config import TrainConfig
from decathlete.workflows.fold import FoldPipeline, FoldResult, PipelineOptions
from decathlete.workflows.folds import Folds, say_folds
from decathlete.workflows.report import render_cross_validation

log = logging.getLogger(__name__)

NAME = "cross_validation"


@dataclass(frozen=True, kw_only=True)
class CrossValidationResult:
    """What a cross-validation leaves.

    Attributes:
        folder: that holds ``fold_<k>`` and, beside them, ``cross_validation.json``, ``.csv`` and ``.html``.
        scores: over folds and over all held-out cases.
        folds: those that are finished.
        report: ``cross_validation.html``; each fold has a report of its own.
        predictions: folder of the test images, predicted by the folds' models together; ``None`` if the dataset has
            none, or a fold failed.
        failed_folds: the error that names folds which failed; the others are whole.
        failed_tests: the error that names test images which could not be predicted.
    """

    folder: Path
    scores: CrossValidation
    folds: Mapping[int, FoldResult]
    report: Path
    predictions: Path | None
    failed_folds: FoldsFailed | None = None
    failed_tests: CasesFailed | None = None


@accepts_fields_of(FoldPipeline)
def cross_validate(
    task: str | Path, *, folds: str | Sequence[int] | None = None, **options: Unpack[PipelineOptions]
) -> CrossValidationResult:
    """Prepare the dataset; train, score and report each fold; put the scores together; predict the test images.

    Called again, it goes on where it was stopped: finished folds are not done again. A fold that fails does not keep
    the others from being done: it is not raised but named in the result's ``failed_folds``, as are test images that
    cannot be predicted in ``failed_tests``.

    Args:
        task: as in :func:`decathlete.run`.
        folds: ``"0-4"``, ``"0,2"``, ``"0-"`` or numbers; ``None``: every fold of the split.
        options: as in :func:`decathlete.run`; ``config`` is of each fold, its ``max_time_s`` the time of *each*.

    Raises:
        OptionError: there are no such folds.
        FoldsFailed: no fold could be done.
        DecathleteError: whatever preparing finds wrong, or what every fold failed by.
        Interrupted: by a signal; what was finished is kept.
    """
    chosen = Folds.of(folds)
    road = FoldPipeline(task=task, **options)
    store = road.prepare()
    numbers = chosen.among(len(store.splits.folds))
    road.listener.step(_announcement(numbers, road.config))
    done, problems = _each_fold(road, numbers)
    failed = _failure(done, problems)
    folder = road.workspace.results_folder(task, road.dims)
    scores = _together(store, done, failed)
    report = _write(folder, scores)
    predictions, failed_tests = (None, None) if failed is not None else _predict_tests(road, done, folder)
    return CrossValidationResult(
        folder=folder,
        scores=scores,
        folds=done,
        report=report,
        predictions=predictions,
        failed_folds=failed,
        failed_tests=failed_tests,
    )


def _announcement(folds: Sequence[int], config: TrainConfig) -> str:
    words = f"Folds {say_folds(folds)}, one after the other"
    if config.max_time_s is None:
        return words
    each, together = say_duration(config.max_time_s), say_duration(config.max_time_s * len(folds))
    return f"{words}: each trains for {each}, together {together}"


def _each_fold(road: FoldPipeline, folds: Sequence[int]) -> tuple[dict[int, FoldResult], dict[int, Exception]]:
    """Those that were done, and what the others failed by."""
    done: dict[int, FoldResult] = {}
    problems: dict[int, Exception] = {}
    for fold in folds:
        try:
            done[fold] = road.fold(fold)
        except Interrupted:
            raise
        except Exception as problem:  # even a bug: hours of other folds are not to be lost by it
            problems[fold] = problem
            users = isinstance(problem, DecathleteError | OSError) or is_memory_short(problem)
            log.error("fold %d failed: %s", fold, _message(problem), exc_info=None if users else problem)
    return done, problems


def _predict_tests(
    road: FoldPipeline, done: Mapping[int, FoldResult], folder: Path
) -> tuple[Path | None, CasesFailed | None]:
    """By the models of all folds together, into a folder that names the folds."""
    output = folder / f"predictions_folds_{say_folds(list(done)).replace(',', '_')}"
    return road.predict_tests([result.folder for result in done.values()], output)


def _failure(done: Mapping[int, FoldResult], problems: Mapping[int, Exception]) -> FoldsFailed | None:
    """The error that names the folds which failed, if any did; raised where nothing was done."""
    if not problems:
        return None
    failed = FoldsFailed({fold: _message(problem) for fold, problem in problems.items()}, n_done=len(done))
    if not done:
        raise _shared(list(problems.values())) or failed
    return failed


def _message(problem: Exception) -> str:
    return str(problem) if isinstance(problem, DecathleteError) else f"{type(problem).__name__}: {problem}"


def _shared(problems: Sequence[Exception]) -> Exception | None:
    """What all failed by alike: then it is not about folds, and is better said once."""
    return problems[0] if len({str(problem) for problem in problems}) == 1 else None


def _together(store: PreparedStore, done: Mapping[int, FoldResult], failed: FoldsFailed | None) -> CrossValidation:
    return CrossValidation.of(
        {fold: result.scores for fold, result in done.items() if result.scores is not None},
        dataset=store.plan.dataset,
        dims=store.plan.dims,
        n_folds=len(store.splits.folds),
        failed=failed.failures if failed else {},
    )


def _write(folder: Path, scores: CrossValidation) -> Path:
    """JSON, CSV and the page. They are made of the folds' own scores, so others may always be replaced."""
    scores.save(folder / f"{NAME}.json")
    scores.save_csv(folder / f"{NAME}.csv")
    page = folder / f"{NAME}.html"
    write_text(page, render_cross_validation(scores))
    return page
