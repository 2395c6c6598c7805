"""Everything in turn for one fold: check, plan, prepare, train, score the held-out cases, report, predict the test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from decathlete.core.signatures import accepts_fields_of
from decathlete.errors import CasesFailed
from decathlete.evaluation.scores import Scores
from decathlete.workflows.fold import FoldPipeline, PipelineOptions
from decathlete.workflows.workspace import FoldName

NO_SCORES = "trained on every case: none is held out, so there are no scores"


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run leaves.

    Attributes:
        folder: of the run; ``model`` in it is the trained model.
        scores: of the held-out cases; ``None`` after ``fold="all"``, which holds none out.
        predictions: folder of the predicted test images, if the dataset has any.
        failed_tests: the error that names test images which could not be predicted; all else of the run is whole.
    """

    folder: Path
    scores: Scores | None
    report: Path
    predictions: Path | None
    failed_tests: CasesFailed | None = None

    def headline_line(self) -> str:
        """The scores in one line, or why there are none."""
        return NO_SCORES if self.scores is None else self.scores.headline_line()


@accepts_fields_of(FoldPipeline)
def run(task: str | Path, *, fold: FoldName = 0, **options: Unpack[PipelineOptions]) -> RunResult:
    """Do it all for one fold; called again, it goes on where it was stopped.

    Test images that cannot be predicted are not raised but named in the result's ``failed_tests``: model, scores and
    report are whole without them.

    Args:
        task: a folder with ``dataset.json``, or its name or number under ``workspace.data``.
        fold: that is held out, from 0; or ``"all"``: train on every case, without scores.
        options: ``dims`` of the model (2 or 3); ``workspace``: where things lie; ``plan_options``; ``config``: of the
            training; ``adapt``: narrow the plan's network, batch and patch for a CPU or a short training time;
            ``predict_options``; ``workers``: cases worked on at once; ``overwrite``; ``listener``.

    Raises:
        DecathleteError: whatever a step finds wrong; what was finished before it is kept.
    """
    road = FoldPipeline(task=task, **options)
    road.prepare()
    done = road.fold(fold)
    predictions, failed = road.predict_tests([done.folder], done.folder / "predictions")
    return RunResult(
        folder=done.folder, scores=done.scores, report=done.report, predictions=predictions, failed_tests=failed
    )
