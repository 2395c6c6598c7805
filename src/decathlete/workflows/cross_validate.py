"""Cross-validation: run several folds, combine their scores, and predict the test images with all their models."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Unpack

from decathlete.core.durations import format_duration
from decathlete.core.files import write_text
from decathlete.core.locks import locked_folder
from decathlete.core.memory import is_out_of_memory
from decathlete.core.signatures import accepts_fields_of
from decathlete.errors import CasesFailedError, DecathleteError, FoldsFailedError, OutputError
from decathlete.evaluation.cross_validation import CrossValidation
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.run_folder import record_in
from decathlete.workflows.earlier_runs import PlannedRuns, check_replaced_plan
from decathlete.workflows.fold import FoldPipeline, FoldResult, PipelineOptions
from decathlete.workflows.fold_tasks import run_folds
from decathlete.workflows.folds import FoldSelection, format_folds, require_held_out_cases
from decathlete.workflows.report import render_cross_validation
from decathlete.workflows.training_jobs import Job

log = logging.getLogger(__name__)

NAME = "cross_validation"


@dataclass(frozen=True, kw_only=True)
class CrossValidationResult:
    """The results of a cross-validation.

    Attributes:
        folder: contains ``fold_<k>``, ``cross_validation.json``, ``.csv`` and ``.html``.
        scores: scores over folds and over all held-out cases.
        folds: the folds that are finished.
        report: ``cross_validation.html``; each fold also has its own report.
        predictions: folder of the test images, predicted by the models of all folds; ``None`` if the dataset has
            none, or a fold failed.
        failed_folds: the error that lists the folds that failed; the others are complete.
        failed_tests: the error that lists the test images that could not be predicted.
    """

    folder: Path
    scores: CrossValidation
    folds: Mapping[int, FoldResult]
    report: Path
    predictions: Path | None
    failed_folds: FoldsFailedError | None = None
    failed_tests: CasesFailedError | None = None


@accepts_fields_of(FoldPipeline)
def cross_validate(
    task: str | Path, *, folds: str | Sequence[int] | None = None, **options: Unpack[PipelineOptions]
) -> CrossValidationResult:
    """Prepare the dataset; train, score and report each fold; combine the scores; predict the test images.

    After an interruption, the same call resumes: finished folds are not run again. A failed fold does not stop the
    others. It raises no error; the result's ``failed_folds`` lists failed folds, and ``failed_tests`` lists test images
    that could not be predicted.

    Args:
        task: as in :func:`decathlete.run`.
        folds: ``"0-4"``, ``"0,2"``, ``"0-"`` or numbers; ``None``: every fold of the split.
        options: as in :func:`decathlete.run`; ``config`` applies to each fold, and its ``max_time_s`` to *each* fold.

    Raises:
        OptionError: there are no such folds.
        OutputError: a folder cannot be written, or another process works in the folder of a fold; or there are results
            of other settings or data.
        FoldsFailedError: every fold failed.
        DecathleteError: preparing the dataset failed, or every fold failed with this same error.
        InterruptedRunError: a signal stopped the work; finished results are kept.
    """
    selection = FoldSelection.parse(folds)
    pipeline = FoldPipeline(task=task, **options)
    pipeline.check()
    pipeline.check_manifest(selection.named)
    pipeline.require_first_stage()
    with pipeline.locked_store(partial(check_replaced_plan, pipeline)) as store:
        numbers = selection.resolve(len(store.splits.folds))
        require_held_out_cases(store.splits, numbers)
        with pipeline.locked_folds(numbers):
            _check_earlier(pipeline, store, numbers)
            pipeline.reporter.step(_announcement(numbers, pipeline))
            return _cross_validate(pipeline, store, numbers)


def _check_earlier(pipeline: FoldPipeline, store: PreparedStore, folds: Sequence[int]) -> None:
    """Check that results of earlier commands can be kept, before the first training.

    A run whose record is damaged fails alone, so that the others are trained.

    Raises:
        OutputError: some were made with other settings or data, or predictions of test images were changed.
    """
    if pipeline.overwrite:
        return
    jobs = [Job(configuration=pipeline.which, fold=fold) for fold in folds]
    folders = {job: pipeline.run_folder(job.fold) for job in jobs}
    readable = [job for job in jobs if _is_readable(folders[job])]
    PlannedRuns(
        pipeline=pipeline,
        configs=dict.fromkeys(readable, pipeline.config),
        folders=folders,
        plans={pipeline.which: store.plan},
        splits=store.splits,
        fingerprint=store.fingerprint,
        results=pipeline.results,
    ).check()
    pipeline.check_predictions(_predictions_folder(pipeline, folds))


def _is_readable(run: Path) -> bool:
    try:
        record_in(run)
    except OutputError:
        return False
    return True


def _predictions_folder(pipeline: FoldPipeline, folds: Sequence[int]) -> Path:
    return pipeline.results / f"predictions_folds_{format_folds(folds).replace(',', '_')}"


def _cross_validate(pipeline: FoldPipeline, store: PreparedStore, numbers: Sequence[int]) -> CrossValidationResult:
    finished, errors = _run_folds(pipeline, numbers)
    if errors and not finished:
        raise _common_error(list(errors.values())) or _folds_error(errors, n_done=0)
    failed = _folds_error(errors, n_done=len(finished)) if errors else None
    if failed is not None and not any(result.scores for result in finished.values()):
        raise failed  # the finished folds hold out no case
    messages = {fold: _message(problem) for fold, problem in errors.items()}
    scores, report = write_summary(pipeline, store, finished, failed=messages)
    predictions, failed_tests = None, None
    if failed is None:
        output = _predictions_folder(pipeline, list(finished))
        predictions, failed_tests = pipeline.predict_tests([result.folder for result in finished.values()], output)
    return CrossValidationResult(
        folder=pipeline.results,
        scores=scores,
        folds=finished,
        report=report,
        predictions=predictions,
        failed_folds=failed,
        failed_tests=failed_tests,
    )


def _announcement(folds: Sequence[int], pipeline: FoldPipeline) -> str:
    together = not isinstance(pipeline.workers, int)
    text = f"Folds {format_folds(folds)}, {'as tasks of the cluster' if together else 'one after the other'}"
    max_time_s = pipeline.config.max_time_s
    if max_time_s is None:
        return text
    total = "" if together else f", together {format_duration(max_time_s * len(folds))}"
    return f"{text}: each trains for {format_duration(max_time_s)}{total}"


def _run_folds(pipeline: FoldPipeline, folds: Sequence[int]) -> tuple[dict[int, FoldResult], dict[int, Exception]]:
    """Run each fold; return the results of finished folds and the errors of failed ones, in the order of the folds."""
    finished: dict[int, FoldResult] = {}
    errors: dict[int, Exception] = {}
    for fold, outcome in run_folds(pipeline, folds):
        if isinstance(outcome, FoldResult):
            finished[fold] = outcome
        else:
            errors[fold] = outcome
            describe_failure(fold, outcome)
    return dict(sorted(finished.items())), dict(sorted(errors.items()))


def describe_failure(fold: int, problem: Exception) -> str:
    """Log the error of a fold and return its message; the log has the traceback of an error of the program."""
    is_user_error = isinstance(problem, DecathleteError | OSError) or is_out_of_memory(problem)
    log.error("fold %d failed: %s", fold, _message(problem), exc_info=None if is_user_error else problem)
    return _message(problem)


def write_summary(
    pipeline: FoldPipeline, store: PreparedStore, finished: Mapping[int, FoldResult], *, failed: Mapping[int, str]
) -> tuple[CrossValidation, Path]:
    """Combine the scores of folds, and write them and their page into the folder of the configuration.

    Args:
        finished: results of the folds (at least one with scores).
        failed: fold -> why it has no scores.
    """
    scores = CrossValidation.of(
        {fold: result.scores for fold, result in finished.items() if result.scores is not None},
        dataset=store.plan.dataset,
        dims=store.plan.dims,
        n_folds=len(store.splits.folds),
        failed=dict(failed),
    )
    return scores, _write(pipeline.results, scores)


def _folds_error(errors: Mapping[int, Exception], *, n_done: int) -> FoldsFailedError:
    return FoldsFailedError({fold: _message(problem) for fold, problem in errors.items()}, n_done=n_done)


def _message(problem: Exception) -> str:
    return str(problem) if isinstance(problem, DecathleteError) else f"{type(problem).__name__}: {problem}"


def _common_error(errors: Sequence[Exception]) -> Exception | None:
    """Return the error of all folds if they failed with equal errors: then its cause is not in the folds."""
    first, *others = errors
    same = all(
        type(other) is type(first) and (other.args, vars(other)) == (first.args, vars(first)) for other in others
    )
    return first if same else None


def _write(folder: Path, scores: CrossValidation) -> Path:
    """Write JSON, CSV and the page; existing ones are replaced, since they follow from the scores of the folds."""
    page = folder / f"{NAME}.html"
    with locked_folder(folder, wait_for="written its scores to"):
        scores.save(folder / f"{NAME}.json")
        scores.save_csv(folder / f"{NAME}.csv")
        write_text(page, render_cross_validation(scores))
    return page
