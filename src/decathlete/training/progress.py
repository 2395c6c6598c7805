"""Who is told how a training goes."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any, Protocol

from decathlete.training.logs import EpochRecord

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Told of steps and epochs, in the first process. Spawned processes need one that can be pickled."""

    def on_step(self, step: int, progress: float) -> None:
        """``step`` steps are made; ``progress`` is 0..1."""
        ...

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch is closed."""
        ...


class LogProgress:
    """A line in the log for each epoch."""

    def on_step(self, step: int, progress: float) -> None:
        """Nothing: steps are many."""

    def on_epoch(self, record: EpochRecord) -> None:
        """The epoch's figures."""
        dice = "" if record.mean_dice is None else f", Dice {record.mean_dice:.4f} (best {record.best_dice or 0:.4f})"
        log.info(
            "epoch %d: step %d, loss %.4f%s, %.1f patches/s",
            record.epoch,
            record.step,
            record.train_loss,
            dice,
            record.patches_per_second,
        )


class TensorBoardProgress:
    """Curves for TensorBoard, in ``folder``; on resuming, those of steps that are made anew are replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def on_step(self, step: int, progress: float) -> None:
        """Nothing: an epoch's means tell enough."""

    def on_epoch(self, record: EpochRecord) -> None:
        """The epoch's figures, each a curve over steps."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=record.step)
        values = {
            "loss/train": record.train_loss,
            "loss/validation": record.val_loss,
            "dice/mean": record.mean_dice,
            **{f"dice/{name}": value for name, value in record.dice.items()},
            "learning_rate": record.learning_rate,
            "patches_per_second": record.patches_per_second,
        }
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, record.step)
        self._writer.flush()


def tensorboard_installed() -> bool:
    """Whether curves can be written."""
    return importlib.util.find_spec("tensorboard") is not None
