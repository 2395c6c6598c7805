"""Intel's OpenVINO, on CPUs."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decathlete.core.extras import import_optional
from decathlete.errors import OptionError
from decathlete.inference.engines import ENGINES, USE_TORCH
from decathlete.inference.engines._program import ProgramEngine
from decathlete.networks.onnx_program import require_onnx

if TYPE_CHECKING:
    import torch


@ENGINES.register("openvino")
class OpenVinoEngine(ProgramEngine):
    """Intel's OpenVINO on the CPU: fp32, or bf16 where the CPU computes in it.

    A quantised program contains which operations are int8; the others are fp32.
    """

    title = "OpenVINO"
    precisions = ("fp32", "bf16")
    program_file = "model.xml"

    @classmethod
    def check_available(cls) -> None:
        """Import OpenVINO, and onnx, which writes the programs that OpenVINO reads."""
        import_openvino()
        require_onnx()

    @classmethod
    def relative_speed(cls, device: torch.device) -> float:
        """1.3 on CPUs: the least gain over torch in fp32; up to 4 with narrow networks."""
        return 1.3 if device.type == "cpu" else 0.0

    def _compile(self, program: bytes | Path) -> None:
        openvino, core = import_openvino(), openvino_core()
        hint = openvino.Type.bf16 if self.precision == "bf16" else openvino.Type.f32
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": "1",
        }
        try:
            model = core.read_model(program)
            model.reshape([1, *self.window])
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as problem:
            lines = str(problem).strip().splitlines() or ["no reason given"]
            raise OptionError(
                f"OpenVINO cannot compile the program of this model ({lines[-1].strip()[:200]})", remedy=USE_TORCH
            ) from problem
        if compiled.get_property("INFERENCE_PRECISION_HINT") != hint:
            raise OptionError(
                f"OpenVINO does not compute in {self.precision} on this CPU",
                remedy="choose --precision fp32, or --engine torch",
            )
        self._request = compiled.create_infer_request()
        self._shape_BK = tuple(compiled.output(0).shape)
        self._tensor = openvino.Tensor

    def _run(self, window_BC: NDArray[np.float32]) -> NDArray[np.float32]:
        # OpenVINO writes into this array: a copy of the logits of many classes would be a GB. The request does not keep
        # the array alive, but each call sets a new one before it computes.
        logits_BK: NDArray[np.float32] = np.empty(self._shape_BK, np.float32)
        self._request.set_output_tensor(0, self._tensor(logits_BK, shared_memory=True))
        self._request.infer([window_BC], share_inputs=True, share_outputs=True)
        return logits_BK


def import_openvino() -> Any:
    """Return the package ``openvino``.

    Raises:
        MissingPackageError: it is missing, or does not load.
    """
    return import_optional("openvino", title="OpenVINO", extra="openvino")


def openvino_core() -> Any:
    """Return OpenVINO's ``Core``: one for the process, kept until its end.

    Each core (of 2026.4, on CPUs with AVX512) sets a signal stack and restores the previous one when it is freed. When
    two cores are freed in the order in which they were made, the second restores the stack of the first, which no
    longer exists, and the next ctrl-C crashes Python.

    Raises:
        MissingPackageError: OpenVINO is missing, or does not load.
    """
    return _single_instance(import_openvino().Core)


@lru_cache
def _single_instance(kind: Callable[[], Any]) -> Any:
    return kind()
