"""OpenVINO programs, for Intel's runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decathlete.core.files import translate_native_write_error
from decathlete.export.exporters import EXPORTERS
from decathlete.export.programs import ProgramExporter, ProgramSource
from decathlete.inference.engines.openvino import OpenVinoEngine, import_openvino, openvino_core
from decathlete.inference.exported_program import RECORD_KEY, ProgramRecord


@EXPORTERS.register("openvino")
class OpenVinoExporter(ProgramExporter):
    """Write an OpenVINO program, for Intel's runtime; its weights stay float32."""

    title = "OpenVINO"
    engine = "openvino"

    def write(self, source: ProgramSource, folder: Path) -> None:
        """Write ``model.xml`` and ``model.bin``."""
        save_openvino(openvino_core().read_model(source.onnx_program()), folder, source.record)


def save_openvino(program: Any, folder: Path, record: ProgramRecord) -> None:
    """Write an ``openvino.Model`` into ``folder``, with its record inside."""
    program.set_rt_info(record.model_dump_json(), RECORD_KEY)
    path = folder / str(OpenVinoEngine.program_file)
    with translate_native_write_error(path):
        import_openvino().save_model(program, path, compress_to_fp16=False)
