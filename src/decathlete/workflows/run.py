"""Run all steps for one fold: check, plan, prepare, train, score the held-out cases, report, predict test images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Unpack

from decathlete.core.signatures import accepts_fields_of
from decathlete.errors import CasesFailedError
from decathlete.evaluation.scores import Scores
from decathlete.workflows.earlier_runs import check_replaced_plan
from decathlete.workflows.fold import FoldPipeline, PipelineOptions
from decathlete.workflows.fold_tasks import run_folds
from decathlete.workflows.workspace import FoldName

PREDICTIONS = "predictions"
"""Subfolder of a run with the test images."""
NO_SCORES = "trained on every case: none is held out, so there are no scores"
NOTHING_HELD_OUT = "the fold holds out no case, so there are no scores"


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The results of a run.

    Attributes:
        folder: folder of the run; its subfolder ``model`` is the trained model.
        scores: scores of the held-out cases; ``None`` with ``fold="all"``, or if the fold holds out no case.
        report: path of the HTML report.
        predictions: folder of the predicted test images, if the dataset has any.
        failed_tests: the error that lists test images which could not be predicted; the other results are complete.
    """

    folder: Path
    scores: Scores | None
    report: Path
    predictions: Path | None
    failed_tests: CasesFailedError | None = None

    def headline_line(self) -> str:
        """Return the scores in one line, or why there are none."""
        if self.scores is not None:
            return self.scores.headline_line()
        return NO_SCORES if self.folder.name == "fold_all" else NOTHING_HELD_OUT


@accepts_fields_of(FoldPipeline)
def run(task: str | Path, *, fold: FoldName = 0, **options: Unpack[PipelineOptions]) -> RunResult:
    """Run all steps for one fold; after an interruption, the same call resumes.

    Test images that cannot be predicted raise no error. The result's ``failed_tests`` lists them; model, scores and
    report are complete without them.

    Args:
        task: a folder with ``dataset.json``, or its name or number under ``workspace.data``.
        fold: the fold to hold out, from 0; ``"all"``: train on every case, without scores.
        options: the fields of :class:`~decathlete.workflows.fold.FoldPipeline`.

    Raises:
        OutputError: a folder cannot be written or contains other results, or another process works in it; before any
            work is done.
        DecathleteError: a step failed; results of earlier steps are kept.
    """
    pipeline = FoldPipeline(task=task, **options)
    pipeline.check([fold])
    pipeline.check_manifest([fold])
    pipeline.require_first_stage()
    predictions_folder = pipeline.run_folder(fold) / PREDICTIONS
    pipeline.check_predictions(predictions_folder)
    check_plan = partial(check_replaced_plan, pipeline)
    with pipeline.locked_folds([fold]), pipeline.locked_store(check_plan):
        ((_, result),) = run_folds(pipeline, [fold])
        if isinstance(result, Exception):
            raise result
        predictions, failed = pipeline.predict_tests([result.folder], predictions_folder)
    return RunResult(
        folder=result.folder, scores=result.scores, report=result.report, predictions=predictions, failed_tests=failed
    )
