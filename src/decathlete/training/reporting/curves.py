"""Curves of a training for every logger: the same figures of the same epochs."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from lightning.pytorch.loggers import Logger

from decathlete.core.extras import how_to_install
from decathlete.core.schema import Schema
from decathlete.errors import DecathleteError, OptionError
from decathlete.training.config import TrainConfig
from decathlete.training.loop.state import RunState
from decathlete.training.loop.task import TrainTask
from decathlete.training.reporting.loggers import LOGGERS, LoggerContext, TrainingLogger, chosen_loggers
from decathlete.training.reporting.plain_names import plain_names
from decathlete.training.reporting.records import EpochRecord
from decathlete.version import __version__

LOGGER_RUNS = "loggers.json"

log = logging.getLogger(__name__)


def check_loggers(config: TrainConfig) -> dict[str, TrainingLogger]:
    """Build the config's loggers by name, or TensorBoard, if it is installed.

    Raises:
        OptionError: one that the config names is not installed.
    """
    chosen = chosen_loggers(config.loggers)
    missing = [s.component for s in chosen if not LOGGERS.resolve(s.component).cls.is_installed()]
    if missing:
        raise OptionError(
            f"--logger {','.join(missing)}: not installed", remedy=f"{how_to_install(*missing)}, or leave it out"
        )
    return {s.component: LOGGERS.build(s) for s in chosen}


class LoggerRuns(Schema):
    """``loggers.json``: the run of each logger, for resumption.

    Attributes:
        runs: logger -> id of its run.
    """

    version: int = 1
    runs: dict[str, str] = {}


class Curves:
    """The open loggers of one training, in its first process.

    A logger that fails (no network, disk full) is disabled with a warning; training continues.
    """

    def __init__(self, task: TrainTask, state: RunState) -> None:
        self._task = task
        self._open: dict[str, tuple[TrainingLogger, Logger]] = {}
        known = self._known()
        for name, logger in check_loggers(task.config).items():
            self._run_safely(name, partial(self._begin, name, logger, known.get(name), state))

    def on_step(self, step: int, progress: float) -> None:
        """Do nothing: means of epochs are logged."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Log the epoch's figures, each a curve over steps."""
        for name, (_, logger) in list(self._open.items()):
            self._run_safely(name, partial(self._log, logger, record))

    def close(self, *, complete: bool) -> None:
        """Write and close all loggers."""
        for name, (component, logger) in list(self._open.items()):
            self._run_safely(name, partial(component.close, logger, complete=complete))
        self._open = {}

    def _begin(self, name: str, component: TrainingLogger, run_id: str | None, state: RunState) -> None:
        """Continue a logger's run, or begin one with plan, config and the epochs so far."""
        # In a resumed run, steps after the last checkpoint's epoch come once more.
        again_from = state.epoch_start_step + 1 if run_id else None
        task = self._task
        context = LoggerContext(
            folder=task.folder,
            run_name=f"{task.plan.dims}d {task.folder.name}",
            dataset=task.plan.dataset,
            again_from=again_from,
        )
        logger, now_id = component.open(context, run_id)
        self._open[name] = (component, logger)
        if run_id is not None:
            return
        component.describe(logger, describe_run(task))
        for record in state.history:
            self._log(logger, record)
        LoggerRuns(runs=self._known() | {name: now_id}).save(self._task.folder / LOGGER_RUNS)

    def _log(self, logger: Logger, record: EpochRecord) -> None:
        values = figures(record)
        if self._task.plan.coarse_start is not None:
            values["coarse"] = float(record.coarse)
        logger.log_metrics(values, record.step)
        logger.save()

    def _known(self) -> dict[str, str]:
        path = self._task.folder / LOGGER_RUNS
        if not path.is_file():
            return {}
        try:
            return dict(LoggerRuns.load(path).runs)
        except DecathleteError as problem:
            log.warning("%s; curves start again", problem.problem)
            return {}

    def _run_safely(self, name: str, action: Callable[[], None]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # theirs, about themselves
                action()
        except Exception as problem:  # a failing logger never stops training
            failed = self._open.pop(name, None)
            if failed is not None:
                with suppress(Exception):  # else its run would stay open for ever
                    component, logger = failed
                    component.close(logger, complete=False)
            log.warning("%s is disabled (%s): training and logs.json continue without it", name, _reason(problem))


def figures(record: EpochRecord) -> dict[str, float]:
    """Return an epoch's curves: name -> value; figures that it does not have are left out."""
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


def describe_run(task: TrainTask) -> dict[str, Any]:
    """Return what loggers record about a run: config and plan, but neither paths nor cases."""
    return {
        "decathlete": __version__,
        "config": task.config.model_dump(mode="json"),
        "plan": task.plan.model_dump(mode="json"),
    }


def _reason(problem: BaseException) -> str:
    """Return the first line of the original error, without the user part of addresses, which may hold a password."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    lines = str(problem).strip().splitlines()
    return re.sub(r"//[^/@\s]*@", "//***@", lines[0]) if lines else type(problem).__name__
