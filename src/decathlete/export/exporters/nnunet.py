"""Models of nnU-Net v2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from decathlete.export.exporters import EXPORTERS, CheckWindows, Exporter, ExportResult
from decathlete.interop.nnunet_export import export_nnunet, prediction_command
from decathlete.models.bundle import ModelBundle


@dataclass(frozen=True, kw_only=True)
class NnunetFolder(ExportResult):
    """A model folder of nnU-Net v2.

    Attributes:
        folds: number of networks.
    """

    folds: int

    @property
    def command(self) -> str:
        """Command of nnU-Net that predicts with the model."""
        return prediction_command(self.path, self.folds)

    @property
    def summary(self) -> str:
        """The folder of the model, and the command that predicts with it."""
        return f"nnU-Net v2 model in {self.path}; it predicts with\n{self.command}"

    def describe_joint_use(self, parts: Sequence[ExportResult]) -> str:
        """Return how nnU-Net averages the probabilities of several models."""
        outputs = " ".join(f"OUTPUT_{part.path.name}" for part in parts)
        return (
            "a model for each plan; predict with each, with --save_probabilities and its own OUTPUT, then average:\n"
            f"nnUNetv2_ensemble -i {outputs} -o OUTPUT"
        )


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
        return NnunetFolder(path=made.folder, notes=made.notes, folds=made.folds)
