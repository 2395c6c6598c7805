"""TensorBoard: event files in the run's folder."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from decathlete.core.registry import ComponentSettings
from decathlete.training.reporting.loggers import LOGGERS, LoggerContext, PackageLogger

FOLDER = "tensorboard"


@LOGGERS.register("tensorboard")
class TensorBoard(PackageLogger):
    """Event files in the folder ``tensorboard`` of the run."""

    package = "tensorboard"

    def __init__(self, settings: ComponentSettings) -> None:
        pass

    def open(self, context: LoggerContext, run_id: str | None) -> tuple[Logger, str]:  # noqa: ARG002
        """See :class:`~decathlete.training.reporting.loggers.TrainingLogger`."""
        # An empty version: the events lie in the folder itself.
        logger = TensorBoardLogger(
            str(context.folder), name=FOLDER, version="", default_hp_metric=False, purge_step=context.again_from
        )
        return logger, FOLDER

    def describe(self, logger: Logger, parameters: dict[str, Any]) -> None:
        """Log a text, too: hyperparameters are kept in hparams.yaml, and shown only with a metric of their own."""
        super().describe(logger, parameters)
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
