"""What one training is, in a form that reaches spawned processes whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from decathlete.augmentation.config import AugmentationConfig
from decathlete.loading.loaders import LOADERS
from decathlete.planning.plan import Plan
from decathlete.preprocessing.store import COARSE_START
from decathlete.training.config import TrainConfig
from decathlete.training.distributed.devices import Hardware

LAST = "checkpoints/last.ckpt"
BEST = "checkpoints/best.ckpt"
STOPPED = "checkpoints/stopped.ckpt"


@dataclass(frozen=True, kw_only=True)
class TrainTask:
    """One training: paths, numbers and names only.

    Attributes:
        store: folder of the prepared data.
        folder: of the run, for everything written.
        plan: with the batch really used, per process and step.
        train_ids, val_ids: cases.
        previous_stage: of a cascade: folders of the models whose predictions are inputs, which the model contains.
        started: reading of ``clock`` when ``train`` was called.
        log_level: of the package's logger in the process that started it.
        clock: returns the current time, seconds; a time budget is measured with it. Must be picklable for several
            devices.
    """

    store: Path
    folder: Path
    plan: Plan
    config: TrainConfig
    hardware: Hardware
    train_ids: tuple[str, ...]
    val_ids: tuple[str, ...]
    started: float
    log_level: int
    clock: Callable[[], float] = time.monotonic
    previous_stage: tuple[Path, ...] = ()

    def store_of(self, *, coarse: bool) -> Path:
        """Return the folder of the prepared data on the coarse grid of the beginning, or on the plan's own."""
        return self.store / COARSE_START if coarse else self.store

    @property
    def augmentation(self) -> AugmentationConfig:
        """The config's, or the loader's defaults for the plan's dimensions; mirroring along the plan's axes alone."""
        plan = self.plan
        chosen = self.config.augmentation or LOADERS.build(self.config.loader).default_augmentation(plan.dims)
        if plan.previous_stage is not None:
            chosen = chosen.with_corrupted_masks()
        return chosen.mirroring_within(plan.mirror_axes, plan.dims)

    @property
    def most_val_cases(self) -> int:
        """Largest number of cases of a validation."""
        return min(self.config.validation.cases, len(self.val_ids))

    @property
    def last_checkpoint(self) -> Path:
        """The state in which the run was last saved, to continue from."""
        return self.folder / LAST

    @property
    def best_checkpoint(self) -> Path:
        """Averaged weights of the epoch with the best validation Dice."""
        return self.folder / BEST

    @property
    def stopped_checkpoint(self) -> Path:
        """Averaged weights of a stopped training, until its model is written."""
        return self.folder / STOPPED
