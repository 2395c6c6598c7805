"""The first stage of a cascade: its models, and its predictions of cases that they were not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from decathlete.core.choices import Configuration
from decathlete.dataset.given_splits import count_cases, name_some
from decathlete.dataset.splits import Splits
from decathlete.errors import DecathleteError, ModelError
from decathlete.inference.output.provenance import PredictionRecord
from decathlete.models.bundle import ModelBundle
from decathlete.planning.configurations import check_stages
from decathlete.planning.plan import Plan
from decathlete.training.reporting.records import RunRecord
from decathlete.workflows.folds import format_folds
from decathlete.workflows.workspace import FoldName, Workspace

FIRST_STAGE: Configuration = "3d_lowres"


@dataclass(frozen=True, kw_only=True)
class FirstStage:
    """A cross-validation of the first stage.

    Attributes:
        models: fold -> folder of its model.
        predictions: case -> label map that was predicted by a model which was not trained on the case.
    """

    models: Mapping[int, Path]
    predictions: Mapping[str, Path]

    def models_for(self, fold: FoldName) -> tuple[Path, ...]:
        """Return the models of the first stage that belong to a fold: its own, so that held-out cases stay unseen.

        A model that is trained on every case gets those of all folds.
        """
        return tuple(self.models.values()) if fold == "all" else (self.models[fold],)


def require_held_out(splits: Splits, case_ids: Sequence[str], *, where: Path) -> None:
    """Check that the folds hold out every case, so that a first stage can predict it without having seen it.

    Args:
        where: folder of the dataset, for the error.

    Raises:
        ModelError: some cases are held out by no fold (``E-MODEL-STAGE``).
    """
    if missing := splits.never_held_out(case_ids):
        raise ModelError(
            f"a cascade needs predictions of every case by a model that was not trained on it, and no fold holds out "
            f"{count_cases(missing)}: {name_some(missing)}",
            where=where,
            remedy="use folds that hold out every case, as a random split does (leave out --splits; --split-seed 1 "
            "ignores the folds of the dataset), or train the other configurations",
            code="E-MODEL-STAGE",
        )


def find_first_stage(
    workspace: Workspace, task: str | Path, plan: Plan, splits: Splits, case_ids: Sequence[str]
) -> FirstStage:
    """Return the cross-validated first stage of a cascade.

    Args:
        plan: of the cascade.
        splits: its folds, which must be those of the first stage.
        case_ids: all cases of the dataset.

    Raises:
        ModelError: a fold of the first stage, or a prediction of it, is missing (``E-MODEL-STAGE``), or no fold holds
            out some cases; or it was trained on other folds or labels.
        PlanError: the user set its grid, and the cascade's is not finer (``E-PLAN-CONFIGURATION``).
    """
    require_held_out(splits, case_ids, where=workspace.dataset(task))
    models: dict[int, Path] = {}
    predictions: dict[str, Path] = {}
    missing = []
    for fold, cases in enumerate(splits.folds):
        run = workspace.run_folder(task, FIRST_STAGE, fold)
        found = _held_out_predictions(run, plan, cases.val)
        if found is None:
            missing.append(fold)
        else:
            models[fold] = run / "model"
            predictions |= found
    if missing:
        raise _not_finished(workspace, task, f"fold {format_folds(missing)} of {len(splits.folds)} is not finished")
    return FirstStage(models=models, predictions=predictions)


def require_begun_first_stage(workspace: Workspace, task: str | Path) -> None:
    """Check that a fold of the first stage was trained, before the cascade's dataset is checked.

    Raises:
        ModelError: none was.
    """
    folder = workspace.results_folder(task, FIRST_STAGE)
    if not any(folder.glob("fold_*/run.json")):
        raise _not_finished(workspace, task, "none was trained")


def _not_finished(workspace: Workspace, task: str | Path, problem: str) -> ModelError:
    name = workspace.dataset(task).name
    return ModelError(
        f"a cascade needs predictions by the configuration {FIRST_STAGE}, of cases that it was not trained on, and "
        f"{problem}",
        where=workspace.results_folder(task, FIRST_STAGE),
        remedy=f"run `decathlete run {name} --configuration {FIRST_STAGE} --folds 0-` first",
        code="E-MODEL-STAGE",
    )


def _held_out_predictions(run: Path, plan: Plan, case_ids: tuple[str, ...]) -> dict[str, Path] | None:
    """Return the predictions of a fold's held-out cases; ``None`` if the fold is not finished.

    Raises:
        ModelError: the fold was trained on other cases or labels, or a file is damaged.
        PlanError: the user set its grid, and the cascade's is not finer (``E-PLAN-CONFIGURATION``).
    """
    if not (run / "run.json").is_file():
        return None
    record = RunRecord.load(run / "run.json", error=ModelError)
    if set(record.val) != set(case_ids):
        raise ModelError(
            "was trained on another split than the cascade's",
            where=run,
            remedy="use the same --n-folds, --split-seed and --splits for both stages",
            code="E-MODEL-STAGE",
        )
    if record.finished is None:
        return None
    bundle = ModelBundle.load(run)
    if bundle.record.labels != plan.labels:
        raise ModelError(
            "has other labels or regions than the cascade",
            where=run,
            remedy="use the same --regions or --brats for both stages",
            code="E-MODEL-STAGE",
        )
    check_stages(bundle.record.plan, plan, where=run)
    found = {case_id: _prediction(run / "validation", case_id, bundle.digest) for case_id in case_ids}
    return {case_id: path for case_id, path in found.items() if path is not None} if all(found.values()) else None


def _prediction(folder: Path, case_id: str, model: str) -> Path | None:
    """Return the label map of a case if it was predicted by the model with this digest."""
    try:
        record = PredictionRecord.load(folder / f"{case_id}.json")
    except DecathleteError:
        return None
    path = folder / Path(record.label).name
    made_by = {use.digest for use in record.settings.models}
    return path if path.is_file() and made_by == {model} else None
