"""Everything in turn for one fold: check, plan, prepare, train, score the held-out cases, report, predict the test."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from decathlete.dataset.manifest import read_dataset
from decathlete.errors import CasesFailed, OptionError
from decathlete.evaluation.scores import Scores
from decathlete.inference.files import predict_files
from decathlete.planning.network_spec import Dims
from decathlete.planning.options import PlanOptions
from decathlete.training.config import TrainConfig
from decathlete.workflows.listen import Listener
from decathlete.workflows.preprocess import preprocess_task
from decathlete.workflows.report import make_report
from decathlete.workflows.train import refuse_two_batch_sizes, train_task
from decathlete.workflows.validate import PredictOptions, load_predictor, validate
from decathlete.workflows.workspace import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run leaves.

    Attributes:
        folder: of the run; ``model`` in it is the trained model.
        predictions: folder of the predicted test images, if the dataset has any.
        failed_tests: the error that names test images which could not be predicted; all else of the run is whole.
    """

    folder: Path
    scores: Scores
    report: Path
    predictions: Path | None
    failed_tests: CasesFailed | None = None


def run(
    task: str | Path,
    *,
    dims: Dims = 3,
    fold: int = 0,
    workspace: Workspace = Workspace(),
    plan_options: PlanOptions = PlanOptions(),
    config: TrainConfig = TrainConfig(),
    fit: bool = True,
    predict_options: PredictOptions = PredictOptions(),
    workers: int = 2,
    overwrite: bool = False,
    listener: Listener = Listener(),
) -> RunResult:
    """Do it all for one fold; called again, it goes on where it was stopped.

    Test images that cannot be predicted are not raised but named in the result's ``failed_tests``: model, scores and
    report are whole without them.

    Args:
        fit: let a CPU or a short budget narrow the plan's network, batch and patch.

    Raises:
        DecathleteError: whatever a step finds wrong; what was finished before it is kept.
    """
    if config.nodes > 1:
        raise OptionError(
            "run works on one machine", remedy="`decathlete preprocess`, then `train --nodes`, then `validate`"
        )
    refuse_two_batch_sizes(config, plan_options.overrides)
    listener.step("Check, plan and prepare the dataset")
    preprocess_task(
        task,
        dims=dims,
        workspace=workspace,
        options=plan_options,
        workers=workers,
        overwrite=overwrite,
        reuse=plan_options == PlanOptions(),
        on_plan=listener.plan,
        checking=listener.cases("check"),
        progress=listener.cases("prepare"),
    )
    listener.step(f"Train fold {fold}")
    trained = train_task(
        task,
        dims=dims,
        fold=fold,
        workspace=workspace,
        config=config,
        fit=fit,
        resume=not overwrite,
        overwrite=overwrite,
        progress=listener.training(),
    )
    listener.step("Predict and score the held-out cases on their original grids")
    scores = validate(
        trained.folder,
        dataset_root=workspace.dataset(task),
        options=predict_options,
        workers=workers,
        overwrite=overwrite,
        progress=listener.cases("predict"),
    )
    listener.step("Write the report")
    report = make_report(trained.folder, dataset_root=workspace.dataset(task))
    # Last: a test image that cannot be read costs neither scores nor report.
    failed: CasesFailed | None = None
    predictions: Path | None = trained.folder / "predictions"
    try:
        predictions = _predict_test(task, trained.folder, workspace, predict_options, overwrite, listener)
    except CasesFailed as problem:
        failed = problem
    return RunResult(folder=trained.folder, scores=scores, report=report, predictions=predictions, failed_tests=failed)


def _predict_test(
    task: str | Path,
    folder: Path,
    workspace: Workspace,
    options: PredictOptions,
    overwrite: bool,
    listener: Listener,
) -> Path | None:
    test_cases = read_dataset(workspace.dataset(task)).test_cases
    if not test_cases:
        return None
    listener.step(f"Predict {len(test_cases)} test images")
    predict_files(
        load_predictor([folder / "model"], options),
        {c.id: c.images for c in test_cases},
        folder / "predictions",
        overwrite=overwrite,
        progress=listener.cases("predict"),
    )
    return folder / "predictions"
