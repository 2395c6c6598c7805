"""How a training reports its progress: in the log, or to the command line."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # commands that train nothing import this module, too
    from decathlete.training.reporting.records import EpochRecord

log = logging.getLogger(__name__)


class TrainingProgress(Protocol):
    """Receives steps and epochs, in the first process. Spawned processes need one that can be pickled."""

    def on_step(self, step: int, progress: float) -> None:
        """Called after each step; ``progress`` is 0..1."""
        ...

    def on_epoch(self, record: EpochRecord) -> None:
        """Called after each epoch."""
        ...


class LogProgress:
    """Writes a line to the log for each epoch."""

    def on_step(self, step: int, progress: float) -> None:
        """Do nothing: there are too many steps."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Log the epoch's figures."""
        dice = f", {record.described_dice}" if record.described_dice else ""
        log.info(
            "epoch %d: step %d, loss %.4f%s, %.1f patches/s",
            record.epoch,
            record.step,
            record.train_loss,
            dice,
            record.patches_per_second,
        )
