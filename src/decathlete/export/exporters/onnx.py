"""ONNX programs, for ONNX Runtime and other runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from decathlete.core.files import atomic_path
from decathlete.core.locks import locked_output
from decathlete.errors import OptionError
from decathlete.export.exporters import EXPORTERS, CheckWindows
from decathlete.export.programs import ExportedProgram, ProgramExporter, ProgramSource, check_replaceable
from decathlete.inference.engines.onnx import OnnxEngine
from decathlete.inference.exported_program import RECORD_KEY
from decathlete.models.bundle import ModelBundle
from decathlete.networks.onnx_program import require_onnx


@EXPORTERS.register("onnx")
class OnnxExporter(ProgramExporter):
    """Write an ONNX program, for ONNX Runtime and others."""

    title = "ONNX"
    engine = "onnx"

    def export(
        self, model: ModelBundle, output: Path, *, windows: Callable[[], CheckWindows], overwrite: bool
    ) -> ExportedProgram:
        """Write a folder with ``model.onnx``; or a single file, if ``output`` ends in ``.onnx``."""
        if output.suffix != ".onnx":
            return super().export(model, output, windows=windows, overwrite=overwrite)
        if model.record.is_cascade:
            raise OptionError(
                f"--output {output.name}: a cascade has two programs",
                remedy="name a folder, without .onnx",
            )
        with locked_output(output):
            check_replaceable(output, _is_exported_file, overwrite=overwrite)
            source = ProgramSource.of(model, windows())
            with atomic_path(output) as partial:
                partial.write_bytes(source.onnx_program())
                program = OnnxEngine(partial, window=source.record.window, precision="fp32")
                max_difference = source.check(program, title=self.title)
        return source.result(output, max_difference)

    def write(self, source: ProgramSource, folder: Path) -> None:
        """Write ``model.onnx``."""
        (folder / str(OnnxEngine.program_file)).write_bytes(source.onnx_program())


def _is_exported_file(path: Path) -> bool:
    """Return whether ``path`` is an exported ONNX program: its metadata contain a record."""
    if not path.is_file():
        return False
    onnx = require_onnx()
    try:
        metadata = onnx.load(str(path), load_external_data=False).metadata_props
    except Exception:  # protobuf has many errors for files of another kind
        return False
    return any(entry.key == RECORD_KEY for entry in metadata)
