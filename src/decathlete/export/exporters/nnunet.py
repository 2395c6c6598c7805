"""Models of nnU-Net v2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from decathlete.export.exporters import EXPORTERS, CheckWindows, Exporter, ExportResult
from decathlete.interop.nnunet_export import export_nnunet
from decathlete.models.bundle import ModelBundle


@dataclass(frozen=True, kw_only=True)
class NnunetFolder(ExportResult):
    """A model folder of nnU-Net v2.

    Attributes:
        command: predicts with it.
    """

    command: str

    @property
    def summary(self) -> str:
        """The folder of the model, and the command that predicts with it."""
        return f"nnU-Net v2 model in {self.path}; it predicts with\n{self.command}"


@EXPORTERS.register("nnunet")
class NnunetExporter(Exporter):
    """Write a folder that nnU-Net v2 predicts with; properties that it cannot represent are errors."""

    def export(
        self,
        model: ModelBundle,
        output: Path,
        *,
        windows: Callable[[], CheckWindows],  # noqa: ARG002 - the weights are the same, and so are the logits
        overwrite: bool,
    ) -> NnunetFolder:
        """Write the folder."""
        made = export_nnunet(model.folder, output, overwrite=overwrite)
        return NnunetFolder(path=made.folder, notes=made.notes, command=made.command)
