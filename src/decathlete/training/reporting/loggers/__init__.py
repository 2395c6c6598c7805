"""Loggers: where the curves of a training go beside its own files. Each module is one, registered by its own name.

What a logger would gather by itself (command line, host, code, output of the terminal) is switched off: it names paths
and people.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from decathlete.core.registry import ComponentSettings, Registry

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger as LightningLogger

LONGEST_WAIT_S = 30
"""Seconds that a server may take to answer; then the training continues without the logger."""


@dataclass(frozen=True, kw_only=True)
class LoggerContext:
    """The run that is logged.

    Attributes:
        folder: of the run; loggers write there unless their settings name another place.
        run_name: for people.
        dataset: its name.
        again_from: first step that is logged a second time, where a run is resumed.
    """

    folder: Path
    run_name: str
    dataset: str
    again_from: int | None = None


class TrainingLogger(Protocol):
    """A logger is made with its settings; it opens one of Lightning's loggers (or one with their methods)."""

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether its package is installed; nothing is imported."""
        ...

    def open(self, context: LoggerContext, run_id: str | None) -> tuple[LightningLogger, str]:
        """Open the logger; return it and the id of its run, which is ``run_id`` if a run is resumed."""
        ...

    def describe(self, logger: LightningLogger, parameters: dict[str, Any]) -> None:
        """Record plan and config."""
        ...

    def close(self, logger: LightningLogger, *, complete: bool) -> None:
        """Write everything; a run that was stopped is marked so."""
        ...


def chosen_loggers(selected: tuple[ComponentSettings, ...] | None) -> tuple[ComponentSettings, ...]:
    """Return the settings of the loggers of a training; ``None`` selects TensorBoard, if it is installed."""
    if selected is not None:
        return selected
    default = LOGGERS.settings("tensorboard")
    return (default,) if LOGGERS.resolve(default.component).cls.is_installed() else ()


class PackageLogger:
    """Base of loggers of an optional package whose name is the component's."""

    package: str

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether the package is there (a folder that happens to have its name is none)."""
        spec = importlib.util.find_spec(cls.package)
        return spec is not None and spec.origin is not None

    def describe(self, logger: LightningLogger, parameters: dict[str, Any]) -> None:
        """Record plan and config as hyperparameters."""
        logger.log_hyperparams(parameters)

    def close(self, logger: LightningLogger, *, complete: bool) -> None:
        """Write everything."""
        logger.finalize("success" if complete else "KILLED")


LOGGERS: Registry[TrainingLogger] = Registry("logger", package=__name__)
