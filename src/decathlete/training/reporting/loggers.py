"""Lightning's loggers, each opened for one training: in its folder, unless the user says otherwise, and saying no more.

What they would gather by themselves (command line, host, code, output of the terminal) is switched off: it names paths
and people.
"""

from __future__ import annotations

import importlib.util
import os
import re
import uuid
from collections.abc import Iterable
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from decathlete.core.choices import LoggerName
from decathlete.core.extras import how_to_install
from decathlete.errors import OptionError
from decathlete.training.config import TrainConfig
from decathlete.training.loop.task import TrainTask

TENSORBOARD, WANDB, MLFLOW = "tensorboard", "wandb", "mlflow"
"""Their folders in a run's folder."""
LONGEST_WAIT_S = 30
"""For a server that does not answer; then the training goes on without it."""
WANDB_SETTINGS: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "host": "",
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_save_requirements": False,
    "init_timeout": LONGEST_WAIT_S,
    "login_timeout": LONGEST_WAIT_S,
    "finish_timeout": LONGEST_WAIT_S,
}
MLFLOW_TAGS = {"mlflow.user": "unknown", "mlflow.source.name": "decathlete"}
"""In place of the login's name and the script's path."""
MLFLOW_VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(LONGEST_WAIT_S),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}


def installed(name: LoggerName) -> bool:
    """Whether its package is there (a folder that happens to be called so is none)."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def loggers_of(config: TrainConfig) -> tuple[LoggerName, ...]:
    """Those that are asked for, or TensorBoard, if it is installed.

    Raises:
        OptionError: one that is asked for is not installed.
    """
    if config.loggers is None:
        return ("tensorboard",) if installed("tensorboard") else ()
    if missing := [name for name in config.loggers if not installed(name)]:
        raise OptionError(
            f"--logger {','.join(missing)}: not installed",
            remedy=f"{how_to_install(*missing)}, or leave it out",
        )
    return config.loggers


def open_logger(
    name: LoggerName, task: TrainTask, run_id: str | None, *, again_from: int | None = None
) -> tuple[Logger, str]:
    """The logger and its run's id: ``run_id`` again, where the run goes on; steps from ``again_from`` on come anew."""
    if name == "tensorboard":
        return _tensorboard(task, again_from), TENSORBOARD
    return _wandb(task, run_id) if name == "wandb" else _mlflow(task, run_id)


def _tensorboard(task: TrainTask, again_from: int | None) -> Logger:
    # An empty version: the events lie in the folder itself.
    return TensorBoardLogger(
        str(task.folder), name=TENSORBOARD, version="", default_hp_metric=False, purge_step=again_from
    )


def _wandb(task: TrainTask, run_id: str | None) -> tuple[Logger, str]:
    if task.config.wandb_mode == "offline":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # only so can it be told
    import wandb

    known = wandb.Settings.model_fields
    settings = wandb.Settings(**{name: value for name, value in WANDB_SETTINGS.items() if name in known})
    run_id = run_id or uuid.uuid4().hex[:8]
    logger = WandbLogger(
        project=_plain(task.plan.dataset),
        name=_run_name(task),
        save_dir=str(task.folder),
        id=run_id,
        mode=task.config.wandb_mode,
        settings=settings,
    )
    _ = logger.experiment  # begins the run
    return logger, run_id


def _mlflow(task: TrainTask, run_id: str | None) -> tuple[Logger, str]:
    for name, value in MLFLOW_VARIABLES.items():
        os.environ.setdefault(name, value)  # only so can it be told
    import mlflow

    uri = task.config.mlflow_uri
    if uri is None:
        folder = task.folder.resolve() / MLFLOW
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{folder / 'mlflow.db'}"
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    logger = MLFlowLogger(
        experiment_name=task.plan.dataset,
        run_name=_run_name(task),
        tracking_uri=uri,
        tags=dict(MLFLOW_TAGS),
        run_id=run_id,
    )
    try:
        known = str(logger.run_id)  # begins the run, or finds it
    finally:
        mlflow.set_tracking_uri(before)  # Lightning changes it for the whole process
    if run_id is not None:
        logger.experiment.update_run(run_id, status="RUNNING")
    return logger, known


def close_logger(name: LoggerName, logger: Logger, *, complete: bool) -> None:
    """End it, so that all is written; a run that was stopped is told from one that is done."""
    if name == "wandb":
        experiment: Any = logger.experiment
        experiment.finish(exit_code=0 if complete else 1)
    else:
        logger.finalize("success" if complete else "KILLED")


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Class names with the letters that all loggers take, each still its own.

    >>> plain_names(["left lung", "tumour (core)", "tumour [core]"])
    {'left lung': 'left lung', 'tumour (core)': 'tumour _core_', 'tumour [core]': 'tumour _core_ 2'}
    """
    plain: dict[str, str] = {}
    for name in names:
        wanted = candidate = _plain(name)
        number = 1
        while candidate in plain.values():
            number += 1
            candidate = f"{wanted} {number}"
        plain[name] = candidate
    return plain


def _plain(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_. -]", "_", name)


def _run_name(task: TrainTask) -> str:
    return f"{task.plan.dims}d {task.folder.name}"
