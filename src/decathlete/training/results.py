"""Make the model bundles from the last checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from torch import Tensor

from decathlete.core.choices import Weights
from decathlete.core.files import remove
from decathlete.errors import DecathleteError
from decathlete.models.bundle import ModelBundle, TrainedMember
from decathlete.models.combine import first_stage
from decathlete.models.record import planned_postprocessing
from decathlete.training.component_origins import training_origins
from decathlete.training.loop.checkpoint import CONTENT_ERRORS, damage_error, load_checkpoint
from decathlete.training.loop.state import RunState
from decathlete.training.loop.task import TrainTask
from decathlete.training.reporting.records import RunRecord
from decathlete.training.run_folder import DERIVED_FILES, RUN, now
from decathlete.version import __version__

MODEL = "model"
MODEL_BEST = "model_best"
STOPPED_AT = "stopped_at"
"""Entry of the provenance of a stopped training's model: the share of the planned training that was made."""
_CIRCUMSTANCES = frozenset({"decathlete", "torch", "machine", "precision", "finished"})
"""Fields of the provenance that do not say which weights the model has."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The result of a training.

    Attributes:
        folder: of the run. model: bundle with the final averaged weights, whose scores are the headline.
        model_best: bundle with those of the best validation, if there was one; kept beside, by this name.
        mean_dice: of the last validation of the averaged weights; best_dice, best_epoch: the best one.
        seconds: inside ``train``, those before a resumption included.
    """

    folder: Path
    model: Path
    model_best: Path | None
    epochs: int
    steps: int
    seconds: float
    mean_dice: float | None
    best_dice: float | None
    best_epoch: int | None


def finish(task: TrainTask, record: RunRecord) -> str:
    """Write the bundles, then mark the run finished; repeating it after a kill gives the same result.

    Returns when that was, ISO 8601.
    """
    content = load_checkpoint(task.last_checkpoint, parts=("state", "ema"))
    state = _state_in(content, task.last_checkpoint)
    _save_bundle(task, record, state, _weights_in(content, task.last_checkpoint), "final", epoch=state.epoch - 1)
    if task.best_checkpoint.is_file():
        best = load_checkpoint(task.best_checkpoint, parts=("ema", "epoch"))
        weights = _weights_in(best, task.best_checkpoint)
        _save_bundle(task, record, state, weights, "best", epoch=best["epoch"])
    finished = now()
    record.revised(finished=finished).save(task.folder / RUN)
    return finished


def save_stopped_model(task: TrainTask, record: RunRecord) -> None:
    """Write the model of a stopped training; the run stays unfinished.

    Raises:
        ModelError: its weights are damaged or not finite. OutputError: it cannot be written.
    """
    path = task.stopped_checkpoint
    content = load_checkpoint(path, parts=("state", "ema", "stopped_at"))
    state, stopped_at = _state_in(content, path), content["stopped_at"]
    _save_bundle(task, record, state, _weights_in(content, path), "final", epoch=state.epoch, stopped_at=stopped_at)
    remove(path)


def load_state(task: TrainTask) -> RunState:
    """Return the state in the last checkpoint.

    Raises:
        ModelError: it is damaged.
    """
    return _state_in(load_checkpoint(task.last_checkpoint, parts=("state",)), task.last_checkpoint)


def _state_in(content: dict[str, Any], path: Path) -> RunState:
    try:
        if missing := [name for name in ("step", "epoch", "outcome", "history") if name not in content["state"]]:
            raise ValueError(f"its state has no {', '.join(missing)}")
        return RunState.from_dict(content["state"])
    except CONTENT_ERRORS as problem:
        raise damage_error(path, problem) from None


def _weights_in(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    weights = content["ema"]
    if not isinstance(weights, dict) or not all(
        isinstance(value, Tensor) and value.layout == torch.strided for value in weights.values()
    ):
        raise damage_error(path, ValueError("its averaged weights are not dense tensors"))
    return weights


def result_of(task: TrainTask, state: RunState) -> TrainResult:
    """Return the result of a run whose last state is ``state``."""
    best = task.folder / MODEL_BEST
    return TrainResult(
        folder=task.folder,
        model=task.folder / MODEL,
        model_best=best if best.is_dir() else None,
        epochs=state.epoch,
        steps=state.step,
        seconds=state.elapsed_s,
        mean_dice=_last_dice(state),
        best_dice=state.best_dice,
        best_epoch=state.best_epoch,
    )


def finished_result(task: TrainTask) -> TrainResult:
    """Return the result of a finished run whose checkpoints were removed, from its models.

    Raises:
        ModelError: the model is missing or damaged.
    """
    final = ModelBundle.load(task.folder / MODEL).record.training_provenance
    has_best = (task.folder / MODEL_BEST).is_dir()
    best = ModelBundle.load(task.folder / MODEL_BEST).record.training_provenance if has_best else {}
    return TrainResult(
        folder=task.folder,
        model=task.folder / MODEL,
        model_best=task.folder / MODEL_BEST if has_best else None,
        epochs=int(_number(final, "epochs") or 0),
        steps=int(_number(final, "steps") or 0),
        seconds=_number(final, "training_seconds") or 0.0,
        mean_dice=_number(final, "validation_dice"),
        best_dice=_number(best, "validation_dice"),
        best_epoch=int(_number(best, "epoch") or 0) if has_best else None,
    )


def _number(provenance: Mapping[str, JsonValue], name: str) -> float | None:
    value = provenance.get(name)
    return float(value) if isinstance(value, int | float) else None


def _last_dice(state: RunState) -> float | None:
    """Return the mean Dice of the last validation on the grid of the model; ``None`` if there was none."""
    dice = [e.mean_dice for e in state.history if e.mean_dice is not None and e.coarse == state.coarse]
    return dice[-1] if dice else None


def _save_bundle(
    task: TrainTask,
    record: RunRecord,
    state: RunState,
    weights: dict[str, Tensor],
    kind: Weights,
    *,
    epoch: int,
    stopped_at: float | None = None,
) -> None:
    folder = task.folder / (MODEL if kind == "final" else MODEL_BEST)
    stages = [first_stage(task.previous_stage)] if task.previous_stage else []
    provenance = _provenance(task, record, state, kind, epoch=epoch)
    if stopped_at is not None:
        provenance[STOPPED_AT] = round(stopped_at, 4)
        provenance["validation_dice"] = None  # that of the last epoch is of other weights
    if kind == "final":
        _remove_derived(folder)
    plan = task.plan.on_coarse_grid() if state.coarse else task.plan  # of a training that ended during its beginning
    member = TrainedMember(
        plan=plan,
        networks=[weights],
        name=f"{plan.configuration_name}_fold_{record.fold}",
        folds=[str(record.fold)],
        mirror_axes=task.augmentation.mirror_axes(plan.dims),
        weights=kind,
        provenance=_keep_circumstances(provenance, folder),
        previous_stage=stages[0].name if stages else None,
        components=training_origins(task.config, task.augmentation),
    )
    ModelBundle.save(folder, [*stages, member], postprocessing=planned_postprocessing(plan), overwrite=True)


def _remove_derived(model: Path) -> None:
    """Remove scores and predictions of a stopped training's model, which another one is about to replace."""
    try:
        existing = ModelBundle.load(model).record.training_provenance
    except DecathleteError:
        return
    if STOPPED_AT in existing:
        for name in DERIVED_FILES:
            remove(model.parent / name)


def _provenance(
    task: TrainTask, record: RunRecord, state: RunState, kind: Weights, *, epoch: int
) -> dict[str, JsonValue]:
    return {
        "decathlete": __version__,
        "torch": torch.__version__,
        "dataset": record.dataset,
        "dataset_digest": record.dataset_digest,
        "fold": record.fold,
        "training_cases": len(record.train),
        "held_out_cases": len(record.val),
        "config": task.config.model_dump(mode="json"),
        "machine": task.hardware.describe(),
        "precision": task.hardware.precision,
        "epoch": epoch,
        "epochs": state.epoch,
        "steps": state.step,
        "skipped_steps": state.skipped,
        "validation_dice": state.best_dice if kind == "best" else _last_dice(state),
        "training_seconds": round(state.elapsed_s, 1),
        "finished": now(),
    }


def _keep_circumstances(provenance: dict[str, JsonValue], folder: Path) -> dict[str, JsonValue]:
    """Return the provenance with the time, machine and versions of the same model that was already written.

    A model that is written again, after a kill between model and record, then keeps its digest, which scores and
    predictions refer to.
    """
    try:
        existing = ModelBundle.load(folder).record.training_provenance
    except DecathleteError:
        return provenance
    fixed = provenance.keys() - _CIRCUMSTANCES | ({STOPPED_AT} & existing.keys())
    if any(existing.get(name) != provenance.get(name) for name in fixed):
        return provenance
    return provenance | {name: existing[name] for name in _CIRCUMSTANCES if name in existing}
