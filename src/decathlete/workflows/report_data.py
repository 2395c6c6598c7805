"""What a run folder holds for its report; what is missing or damaged becomes a note, not an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from decathlete.core.schema import Schema
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.spec import Case
from decathlete.errors import DecathleteError, ModelError
from decathlete.evaluation.folders import label_files
from decathlete.evaluation.scores import Scores
from decathlete.models.record import ModelRecord
from decathlete.training.reporting.records import Logs, RunRecord

Found = TypeVar("Found", bound=Schema)


@dataclass(frozen=True, kw_only=True)
class RunData:
    """A run folder, read.

    Attributes:
        record, model, logs, scores: ``None`` where the file is missing or damaged.
        cases: raw images and labels of the held-out cases, by id; empty if the raw dataset is gone.
        predictions: their predicted label maps, by id.
        warnings: case id -> what prediction warned of.
        notes: what the report has to do without, and why.
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
    """Read what is there.

    Args:
        dataset_root: of the raw images, if they moved since training.

    Raises:
        ModelError: ``folder`` is not a run folder (neither ``run.json`` nor ``model/model.json``).
    """
    if not any((folder / name).is_file() for name in ("run.json", "model/model.json")):
        raise ModelError(
            "is not the folder of a run (no run.json, no model/model.json)",
            where=folder,
            remedy="name the folder that `decathlete train` made (results/<dataset>/<2d|3d>/fold_<k>)",
        )
    notes: list[str] = []
    record = _load(RunRecord, folder / "run.json", "what the run was made from", notes)
    held_out = record is None or bool(record.val)
    if not held_out:
        notes.append("Trained on every case: none is held out, so there are no scores and no pictures of cases.")
    root = dataset_root or (Path(record.dataset_root) if record and record.dataset_root else None)
    return RunData(
        folder=folder,
        record=record,
        model=_load(ModelRecord, folder / "model" / "model.json", "the plan", notes),
        logs=_load(Logs, folder / "logs.json", "the training curves", notes),
        scores=_load(Scores, folder / "scores.json", "the scores", notes) if held_out else None,
        cases=_raw_cases(root, notes) if held_out else {},
        predictions=_predictions(folder / "validation", notes) if held_out else {},
        warnings=_warnings(folder / "validation"),
        notes=tuple(notes),
    )


def _load(kind: type[Found], path: Path, what: str, notes: list[str]) -> Found | None:
    try:
        return kind.load(path)
    except DecathleteError as problem:
        why = "does not exist (yet)" if not path.exists() else f"cannot be used: {problem.problem}"
        notes.append(f"{path.name} {why}: {what} cannot be shown.")
        return None


def _raw_cases(root: Path | None, notes: list[str]) -> dict[str, Case]:
    try:
        if root is not None:
            return {case.id: case for case in read_dataset(root).cases}
    except (DecathleteError, OSError):
        pass
    notes.append("The raw dataset is not where it was in training: there are no pictures of cases.")
    return {}


def _predictions(folder: Path, notes: list[str]) -> dict[str, Path]:
    try:
        return label_files(folder)
    except DecathleteError:
        notes.append("The folder validation holds no predictions: there are no pictures of cases.")
        return {}


def _warnings(folder: Path) -> dict[str, tuple[str, ...]]:
    """What prediction wrote into the JSON beside each label map."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            said = json.loads(path.read_text(encoding="utf-8")).get("warnings", [])
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(said, list) and said:
            found[path.stem] = tuple(str(s) for s in said)
    return found
