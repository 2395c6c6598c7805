"""MLflow."""

from __future__ import annotations

import os
from typing import ClassVar

from lightning.pytorch.loggers import Logger, MLFlowLogger
from pydantic import Field

from decathlete.core.registry import ComponentSettings
from decathlete.training.reporting.loggers import LOGGERS, LONGEST_WAIT_S, LoggerContext, PackageLogger

FOLDER = "mlflow"
TAGS = {"mlflow.user": "unknown", "mlflow.source.name": "decathlete"}
"""In place of the login's name and the script's path."""
VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(LONGEST_WAIT_S),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}


@LOGGERS.register("mlflow")
class MLflow(PackageLogger):
    """MLflow, with its store in the run's folder or on a server."""

    class Settings(ComponentSettings):
        free_on_resume: ClassVar[frozenset[str]] = frozenset({"uri"})

        uri: str | None = Field(default=None, exclude=True, repr=False)
        """URI of the tracking store; none: a file in the run's folder. It may hold a password and is never written."""

    package = "mlflow"

    def __init__(self, settings: Settings) -> None:
        self.uri = settings.uri

    def open(self, context: LoggerContext, run_id: str | None) -> tuple[Logger, str]:
        """See :class:`~decathlete.training.reporting.loggers.TrainingLogger`."""
        for name, value in VARIABLES.items():
            os.environ.setdefault(name, value)  # the package has no other switch for them
        import mlflow

        uri = self.uri
        if uri is None:
            folder = context.folder.resolve() / FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{folder / 'mlflow.db'}"
        before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
        logger = MLFlowLogger(
            experiment_name=context.dataset,
            run_name=context.run_name,
            tracking_uri=uri,
            tags=dict(TAGS),
            run_id=run_id,
        )
        try:
            known = str(logger.run_id)  # begins the run, or finds it
        finally:
            mlflow.set_tracking_uri(before)  # Lightning changes it for the whole process
        if run_id is not None:
            logger.experiment.update_run(run_id, status="RUNNING")
        return logger, known
