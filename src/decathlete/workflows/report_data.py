"""Reads the data for a report from the folder of a run. Missing or damaged files give notes, not errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from decathlete.core.documents import read_json
from decathlete.core.schema import Schema
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case
from decathlete.errors import DecathleteError, ModelError
from decathlete.evaluation.folders import label_files
from decathlete.evaluation.scores import Scores
from decathlete.io.format_settings import format_settings
from decathlete.models.record import ModelRecord
from decathlete.training.reporting.records import Logs, RunRecord

SchemaT = TypeVar("SchemaT", bound=Schema)


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Content of the folder of a run.

    Attributes:
        folder: folder of the run.
        record: content of ``run.json``; ``None`` if it is missing or damaged.
        model: content of ``model.json``; ``None`` if it is missing or damaged.
        logs: content of ``logs.json``; ``None`` if it is missing or damaged.
        scores: content of ``scores.json``; ``None`` if it is missing or damaged.
        cases: case id -> raw images and label; empty if the raw dataset is missing.
        predictions: case id -> predicted label map.
        warnings: case id -> warnings of the prediction.
        notes: what is missing and why.
    """

    folder: Path
    record: RunRecord | None
    model: ModelRecord | None
    logs: Logs | None
    scores: Scores | None
    cases: Mapping[str, Case]
    predictions: Mapping[str, Path]
    warnings: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]


def read_run(folder: Path, *, dataset_root: Path | None = None) -> RunData:
    """Read the folder of a run.

    Args:
        folder: folder of the run.
        dataset_root: folder of the raw dataset, if it has moved since training.

    Raises:
        ModelError: the folder has neither ``run.json`` nor ``model/model.json``.
    """
    if not any((folder / name).is_file() for name in ("run.json", "model/model.json")):
        raise ModelError(
            "is not the folder of a run (no run.json, no model/model.json)",
            where=folder,
            remedy="use the folder that `decathlete train` made (results/<dataset>/<configuration>/fold_<k>)",
            code="E-MODEL-NOT-FOUND",
        )
    notes: list[str] = []
    record = _load(RunRecord, folder / "run.json", "the settings of the run", notes)
    held_out = record is None or bool(record.val)
    if record is not None and not held_out:
        why = (
            "The model was trained on every case. No case"
            if record.fold == "all"
            else f"In fold {record.fold}, no case"
        )
        notes.append(f"{why} is held out, so there are no scores and no pictures.")
    root = dataset_root or (Path(record.dataset_root) if record and record.dataset_root else None)
    return RunData(
        folder=folder,
        record=record,
        model=_load(ModelRecord, folder / "model" / "model.json", "the plan", notes),
        logs=_load(Logs, folder / "logs.json", "the training curves", notes),
        scores=_load(Scores, folder / "scores.json", "the scores", notes) if held_out else None,
        cases=_read_cases(root, record, notes) if held_out else {},
        predictions=_find_predictions(folder / "validation", notes) if held_out else {},
        warnings=_read_warnings(folder / "validation"),
        notes=tuple(notes),
    )


def _load(kind: type[SchemaT], path: Path, content: str, notes: list[str]) -> SchemaT | None:
    try:
        return kind.load(path)
    except DecathleteError as problem:
        reason = "does not exist (yet)" if not path.exists() else f"cannot be used: {problem.problem}"
        notes.append(f"{path.name} {reason}. The page cannot show {content}.")
        return None


def _read_cases(root: Path | None, record: RunRecord | None, notes: list[str]) -> dict[str, Case]:
    try:
        if root is not None:
            formats = format_settings(record.image_formats) if record else ()
            spec = read_dataset(root, spacing=record.spacing if record else None, formats=formats)
            return {case.id: case for case in spec.cases}
    except (DecathleteError, OSError):
        pass
    notes.append("The raw dataset is not where it was in training. There are no pictures of cases.")
    return {}


def _find_predictions(folder: Path, notes: list[str]) -> dict[str, Path]:
    try:
        return label_files(folder)
    except DecathleteError:
        notes.append("The folder validation contains no predictions. There are no pictures of cases.")
        return {}


def _read_warnings(folder: Path) -> dict[str, tuple[str, ...]]:
    """Read the warnings in the JSON file beside each label map."""
    by_case = {}
    for path in sorted(folder.glob("*.json")):
        try:
            warnings = read_json(path).get("warnings", [])
        except (DecathleteError, AttributeError):
            continue
        if isinstance(warnings, list) and warnings:
            by_case[path.stem] = tuple(str(warning) for warning in warnings)
    return by_case
