"""The course of a training for TensorBoard, Weights & Biases and MLflow: the same figures, from the same epochs."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from lightning.pytorch.loggers import Logger

from decathlete.core.choices import LoggerName
from decathlete.core.schema import Schema
from decathlete.errors import DecathleteError
from decathlete.training.loop.state import RunState
from decathlete.training.loop.task import TrainTask
from decathlete.training.reporting.loggers import close_logger, loggers_of, open_logger, plain_names
from decathlete.training.reporting.records import EpochRecord
from decathlete.version import __version__

LOGGERS = "loggers.json"

log = logging.getLogger(__name__)


class LoggerRuns(Schema):
    """``loggers.json``: where each logger's curves go on when the training is resumed.

    Attributes:
        runs: logger -> id of its run.
    """

    version: int = 1
    runs: dict[LoggerName, str] = {}


class Curves:
    """The loggers of one training, in its first process; the ``Progress`` that tells them.

    One that fails (no network, no room) is given up with a warning, and nothing else comes of it.
    """

    def __init__(self, task: TrainTask, state: RunState) -> None:
        self._task = task
        self._open: dict[LoggerName, Logger] = {}
        known = self._known()
        for name in loggers_of(task.config):
            self._guarded(name, partial(self._begin, name, known.get(name), state))

    def on_step(self, step: int, progress: float) -> None:
        """Nothing: an epoch's means tell enough."""

    def on_epoch(self, record: EpochRecord) -> None:
        """The epoch's figures, each a curve over steps."""
        for name, logger in list(self._open.items()):
            self._guarded(name, partial(_tell, logger, record))

    def close(self, *, complete: bool) -> None:
        """Let all be written."""
        for name, logger in list(self._open.items()):
            self._guarded(name, partial(close_logger, name, logger, complete=complete))
        self._open = {}

    def _begin(self, name: LoggerName, run_id: str | None, state: RunState) -> None:
        """Go on with a run, or begin one: with plan and config, and the epochs that are past."""
        # Of a run that goes on, steps after the last checkpoint's epoch come once more.
        again_from = state.epoch_start_step + 1 if run_id else None
        logger, now_id = open_logger(name, self._task, run_id, again_from=again_from)
        self._open[name] = logger
        if run_id is not None:
            return
        _describe(name, logger, described(self._task))
        for record in state.history:
            _tell(logger, record)
        LoggerRuns(runs=self._known() | {name: now_id}).save(self._task.folder / LOGGERS)

    def _known(self) -> dict[LoggerName, str]:
        path = self._task.folder / LOGGERS
        if not path.is_file():
            return {}
        try:
            return dict(LoggerRuns.load(path).runs)
        except DecathleteError as problem:
            log.warning("%s; curves begin anew", problem.problem)
            return {}

    def _guarded(self, name: LoggerName, action: Callable[[], None]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # theirs, about themselves
                action()
        except Exception as problem:  # whatever it is: a logger is not worth a training
            failed = self._open.pop(name, None)
            if failed is not None:
                with suppress(Exception):  # else its run would stay open for ever
                    close_logger(name, failed, complete=False)
            log.warning("%s is given up (%s): training and logs.json go on without it", name, _reason(problem))


def figures(record: EpochRecord) -> dict[str, float]:
    """An epoch's curves: name -> value, those left out that it does not have."""
    names = plain_names(record.dice)
    values = {
        "loss/train": record.train_loss,
        "loss/validation": record.val_loss,
        "mean_dice": record.mean_dice,
        "best_dice": record.best_dice if record.mean_dice is not None else None,
        **{f"dice/{names[name]}": value for name, value in record.dice.items()},
        "learning_rate": record.learning_rate,
        "patches_per_second": record.patches_per_second,
    }
    return {name: value for name, value in values.items() if value is not None}


def described(task: TrainTask) -> dict[str, Any]:
    """What a logger is told of a run: config and plan, but neither paths nor cases."""
    return {
        "decathlete": __version__,
        "config": task.config.model_dump(mode="json"),
        "plan": task.plan.model_dump(mode="json"),
    }


def _tell(logger: Logger, record: EpochRecord) -> None:
    logger.log_metrics(figures(record), record.step)
    logger.save()


def _describe(name: LoggerName, logger: Logger, parameters: dict[str, Any]) -> None:
    logger.log_hyperparams(parameters)
    if name == "tensorboard":  # keeps them in hparams.yaml, and shows them only beside a metric of its own
        experiment: Any = logger.experiment
        experiment.add_text("plan and config", _as_markdown(parameters))


def _as_markdown(parameters: dict[str, Any], indent: str = "") -> str:
    lines = []
    for name, value in parameters.items():
        nested = isinstance(value, dict) and value
        lines.append(f"{indent}- {name}" if nested else f"{indent}- {name}: {value}")
        if nested:
            lines.append(_as_markdown(value, indent + "    "))
    return "\n".join(lines)


def _reason(problem: BaseException) -> str:
    """The first line of what it all began with; of addresses, not what stands before the host: a password, maybe."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    lines = str(problem).strip().splitlines()
    return re.sub(r"//[^/@\s]*@", "//***@", lines[0]) if lines else type(problem).__name__
