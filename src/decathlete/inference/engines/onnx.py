"""Microsoft's ONNX Runtime, on CPUs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.extras import import_optional
from decathlete.errors import OptionError
from decathlete.inference.engines import ENGINES
from decathlete.inference.engines._program import ProgramEngine
from decathlete.networks.onnx_program import require_onnx

if TYPE_CHECKING:
    import torch


@ENGINES.register("onnx")
class OnnxEngine(ProgramEngine):
    """Microsoft's ONNX Runtime on the CPU, in fp32."""

    title = "ONNX Runtime"
    program_file = "model.onnx"

    @classmethod
    def check_available(cls) -> None:
        """Import ONNX Runtime, and onnx, which writes its programs."""
        _import_onnxruntime()
        require_onnx()

    @classmethod
    def relative_speed(cls, device: torch.device) -> float:
        """0.9 on CPUs: less than torch with wide 3D networks, though up to 2 with narrow ones."""
        return 0.9 if device.type == "cpu" else 0.0

    @classmethod
    def resolve_precision(cls, precision: str) -> str:
        """``auto`` is fp32, the only precision.

        Raises:
            OptionError: another precision.
        """
        if precision not in ("auto", "fp32"):
            super().resolve_precision(precision)  # its error, if the precision is unknown altogether
            raise OptionError(
                f"ONNX Runtime does not compute in {precision} on a CPU",
                remedy="choose --precision fp32, or --engine torch",
            )
        return "fp32"

    def _compile(self, program: bytes | Path) -> None:
        onnxruntime = _import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        source = str(program) if isinstance(program, Path) else program
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def _run(self, window_BC: NDArray[np.float32]) -> NDArray[np.float32]:
        logits_BK: NDArray[np.float32] = self._session.run(None, {self._input: window_BC})[0]
        return logits_BK


def _import_onnxruntime() -> Any:
    return import_optional("onnxruntime", title="ONNX Runtime", extra="onnx")
