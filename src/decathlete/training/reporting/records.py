"""Records of a run: ``run.json`` (what it is made from), ``logs.json`` and ``logs.csv`` (its epochs)."""

from __future__ import annotations

import csv
import io
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from decathlete.core.files import write_text
from decathlete.core.geometry import Triple
from decathlete.core.schema import Schema
from decathlete.errors import printable
from decathlete.io.format_settings import ImageFormats, format_settings
from decathlete.io.reading import Reading
from decathlete.planning.network_spec import Dims
from decathlete.planning.plan import Plan
from decathlete.training.config import TrainConfig
from decathlete.training.short_forms import is_version_1, upgrade_version_1

LOGS_VERSION = 1

Fold = int | Literal["all"]


class EpochRecord(Schema):
    """One epoch; validation fields are ``None`` where it was not validated.

    Attributes:
        epoch: number of the epoch, from 0.
        step: number of steps from the start of training to the end of the epoch.
        seconds: time of this epoch with its validation, s.
        elapsed: time since the start of training, s.
        train_loss: mean loss of its steps; NaN if all were skipped.
        val_loss: mean loss over the validated cases.
        learning_rate: learning rate at its end.
        dice: class (or region) -> mean Dice over the validated cases, on the prepared grid, of the averaged weights;
            a case without the class in truth and prediction does not count; ``None`` if no case counts.
        mean_dice: mean of ``dice``.
        best_dice: highest mean Dice so far, this epoch included.
        best_epoch: epoch of ``best_dice``.
        patches_per_second: of training, validation left out.
        skipped_steps: of this epoch, for a loss or gradient that was not finite.
        coarse: whether it used the coarse grid on which the training begins: its Dice is of that grid, and no best one.
    """

    epoch: int
    step: int
    seconds: float
    elapsed: float
    train_loss: float
    val_loss: float | None = None
    learning_rate: float
    dice: dict[str, float | None] = {}
    mean_dice: float | None = None
    best_dice: float | None = None
    best_epoch: int | None = None
    patches_per_second: float
    skipped_steps: int = 0
    coarse: bool = Field(default=False, exclude_if=operator.not_)

    @property
    def described_dice(self) -> str:
        """Mean Dice of the validation with the best so far, as in ``Dice 0.812 (best 0.830)``; empty without one."""
        if self.mean_dice is None:
            return ""
        compared = "coarse grid" if self.best_dice is None else f"best {self.best_dice:.3f}"
        return f"Dice {self.mean_dice:.3f} ({compared})"


class Logs(Schema):
    """All epochs of a run, as ``logs.json`` holds them."""

    version: int = LOGS_VERSION
    classes: tuple[str, ...]
    epochs: tuple[EpochRecord, ...]


class RunRecord(Schema):
    """The inputs of a run, and when it was finished.

    Attributes:
        dataset_root: of the raw images, if known, for validation on original grids.
        spacing: that raw files without a spacing are read with (z, y, x, mm).
        image_formats: settings of image formats that raw files are read with, by the format's name.
        annotated: case id -> annotated classes, of cases in which not all classes were annotated.
        groups: case id -> patient, if ``--group-by`` has given them.
        train, val: case ids.
        dataset_digest, plan_digest: of what the weights depend on.
        plan: that it trains by; ``None`` in records from before it was kept.
        store_plan_digest: of the prepared data's plan, from which ``plan`` was fitted.
        started, finished: ISO 8601 times, UTC.
    """

    version: str
    dataset: str
    dataset_root: str | None
    dataset_digest: str
    prepared: str
    dims: Dims
    fold: Fold
    train: tuple[str, ...]
    val: tuple[str, ...]
    config: TrainConfig
    plan_digest: str
    started: str
    finished: str | None = None
    plan: Plan | None = None
    store_plan_digest: str | None = None
    spacing: Triple | None = None
    image_formats: ImageFormats = Field(default={}, exclude_if=operator.not_)
    annotated: dict[str, tuple[str, ...]] = Field(default={}, exclude_if=lambda cases: not cases)
    groups: dict[str, str] = Field(default={}, exclude_if=operator.not_)

    @property
    def reading(self) -> Reading:
        """Return the settings for reading raw files.

        Raises:
            OptionError: settings of a format that is not registered here.
        """
        return Reading(spacing=self.spacing, formats=format_settings(self.image_formats))

    @field_validator("config", mode="before")
    @classmethod
    def _config_of_version_1(cls, config: Any) -> Any:
        """Read the flat form that release 0.1 and older have recorded."""
        if isinstance(config, Mapping) and is_version_1(config):
            return upgrade_version_1(config)
        return config

    def differences(self, other: RunRecord) -> list[str]:
        """List why ``other`` would not end with the same weights: ``"epochs: 2 -> 3"``."""
        names = ("dataset", "dataset_digest", "plan_digest", "dims", "fold", "train", "val")
        found = [
            f"another {name.replace('_digest', '')}" for name in names if getattr(self, name) != getattr(other, name)
        ]
        return found + self.config.differences(other.config)


def write_logs(folder: Path, classes: Sequence[str], epochs: Sequence[EpochRecord]) -> None:
    """Write ``logs.json`` and ``logs.csv``, each atomically."""
    Logs(classes=tuple(classes), epochs=tuple(epochs)).save(folder / "logs.json")
    write_text(folder / "logs.csv", _as_csv(classes, epochs))


def _as_csv(classes: Sequence[str], epochs: Sequence[EpochRecord]) -> str:
    columns = [name for name in EpochRecord.model_fields if name != "dice"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *(f"dice_{name}" for name in classes)])
    for record in epochs:
        writer.writerow([*(getattr(record, c) for c in columns), *(record.dice.get(name) for name in classes)])
    return printable(text.getvalue())
