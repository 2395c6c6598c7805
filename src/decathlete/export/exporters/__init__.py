"""Exporters: write a trained model for another program. Each is one module, found by its name::

    @EXPORTERS.register("coreml")
    class CoreMlExporter(Exporter):
        def export(self, model, output, *, windows, overwrite): ...

``decathlete export NAME MODEL --output PATH`` runs every registered exporter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from decathlete.core.registry import ComponentSettings, Registry

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from decathlete.models.bundle import ModelBundle


@dataclass(frozen=True, kw_only=True)
class CheckWindows:
    """Windows on which a program is compared with its model.

    Attributes:
        windows: each (1, channel, *patch), float32.
        origin: what they were cut from, in words.
    """

    windows: Sequence[Tensor]
    origin: str


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What an exporter wrote.

    Attributes:
        path: file or folder. It changes when the exports of several plans are moved to their place together: nothing
            else may contain it.
        notes: properties of the model that the other program cannot represent, a sentence each.
    """

    path: Path
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One or two lines for the user."""
        return f"exported to {self.path}"

    def describe_joint_use(self, parts: Sequence[ExportResult]) -> str:  # noqa: ARG002
        """Return how to predict with the exports of all plans of a model, of which this is one.

        Args:
            parts: the export of each plan.
        """
        return "an export for each plan; the model predicts the mean of their probabilities"


class Exporter(ABC):
    """Writes a trained model in another form. Called with its settings.

    Attributes:
        takes_several_plans: whether it is given a model of several plans as a whole, instead of the networks of each
            plan by themselves.
    """

    takes_several_plans: ClassVar[bool] = False

    class Settings(ComponentSettings):
        """Settings of the exporter; there are none unless a subclass adds some."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @classmethod
    def check_available(cls) -> None:
        """Raise the error that says why the exporter cannot be used on this installation.

        Raises:
            MissingPackageError: a package is missing, or does not load.
        """
        return  # most need no optional package

    @abstractmethod
    def export(
        self, model: ModelBundle, output: Path, *, windows: Callable[[], CheckWindows], overwrite: bool
    ) -> ExportResult:
        """Write ``model`` to ``output``, whole or not at all.

        Args:
            windows: returns windows of the model's own cases, to compare what was written with the model.
            overwrite: replace an earlier export.

        Raises:
            ModelError: the other program cannot represent the model, or computes other logits; nothing is written then.
            OutputError: something else is at ``output``, or it cannot be written.
        """


EXPORTERS: Registry[Exporter] = Registry("exporter", package=__name__)
