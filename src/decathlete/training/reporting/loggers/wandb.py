"""Weights & Biases."""

from __future__ import annotations

import os
import uuid
from typing import Any, ClassVar

from lightning.pytorch.loggers import Logger, WandbLogger

from decathlete.core.choices import WandbMode
from decathlete.core.registry import ComponentSettings
from decathlete.training.reporting.loggers import LOGGERS, LONGEST_WAIT_S, LoggerContext, PackageLogger
from decathlete.training.reporting.plain_names import plain_name

SETTINGS: dict[str, Any] = {
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


@LOGGERS.register("wandb")
class WeightsAndBiases(PackageLogger):
    """Weights & Biases, offline (files in the run's folder) or online."""

    class Settings(ComponentSettings):
        free_on_resume: ClassVar[frozenset[str]] = frozenset({"mode"})

        mode: WandbMode = "offline"
        """``offline`` leaves its files in the run's folder (`wandb sync` sends them later); ``online`` sends them."""

    package = "wandb"

    def __init__(self, settings: Settings) -> None:
        self.mode = settings.mode

    def open(self, context: LoggerContext, run_id: str | None) -> tuple[Logger, str]:
        """See :class:`~decathlete.training.reporting.loggers.TrainingLogger`."""
        if self.mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # the package has no other switch for it
        import wandb

        known = wandb.Settings.model_fields
        settings = wandb.Settings(**{name: value for name, value in SETTINGS.items() if name in known})
        run_id = run_id or uuid.uuid4().hex[:8]
        logger = WandbLogger(
            project=plain_name(context.dataset),
            name=context.run_name,
            save_dir=str(context.folder),
            id=run_id,
            mode=self.mode,
            settings=settings,
        )
        _ = logger.experiment  # begins the run
        return logger, run_id

    def close(self, logger: Logger, *, complete: bool) -> None:
        """End the run: with exit code 1 where it was stopped."""
        experiment: Any = logger.experiment
        experiment.finish(exit_code=0 if complete else 1)
