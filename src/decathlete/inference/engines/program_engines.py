"""Engines that run a model as an ONNX program on the CPU: OpenVINO and ONNX Runtime.

Windows have the one size that the program is compiled for and are computed one at a time, so a batch is no gain and no
need. Both packages are optional and are imported here alone, when an engine is made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decathlete.core.extras import how_to_install
from decathlete.core.memory import translate_out_of_memory
from decathlete.errors import OptionError
from decathlete.networks.precision import Precision, resolve_precision

CPU = torch.device("cpu")


class ProgramEngine:
    """What the two have in common.

    Args:
        program: in ONNX form, or a file; OpenVINO also reads its own (``.xml``).
        window: channels and size of a window, as the program takes them.
        precision: ``auto`` (the fastest that the engine has on this CPU) or one of its own; ``int8`` is for programs
            that were quantised.

    Raises:
        OptionError: the package is missing or does not load, or the engine has not this precision on this CPU.
    """

    name: str
    device = CPU
    kept_windows = 0

    def __init__(self, program: bytes | Path, *, window: tuple[int, ...], precision: str = "auto") -> None:
        self.window = window
        self.precision: Precision | Literal["int8"]
        self.precision = "int8" if precision == "int8" else resolve_precision(precision, CPU)
        self._load(program)

    @torch.inference_mode()
    def __call__(self, windows: Tensor) -> Tensor:
        """Float32 logits of float32 windows.

        Raises:
            InsufficientMemoryError: out of memory for the feature maps of one window.
        """
        if tuple(windows.shape[1:]) != self.window:
            raise ValueError(f"windows of {tuple(windows.shape[1:])} for a program that takes {self.window}")
        remedy = "close other programs, or choose --engine torch"
        with translate_out_of_memory(f"the feature maps of one window of {self.window[1:]}", remedy=remedy):
            logits = [torch.from_numpy(self._run(window.contiguous().numpy())) for window in torch.split(windows, 1)]
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def _load(self, program: bytes | Path) -> None:
        raise NotImplementedError

    def _run(self, window_BC: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of one window (the batch axis is there), in memory of their own."""
        raise NotImplementedError


class OpenVinoEngine(ProgramEngine):
    """Intel's OpenVINO, with as many threads as torch has: fp32, or bf16 where the CPU computes in it.

    A quantised program says itself what is computed in int8; all else of it is fp32, as it was when it was accepted. A
    program that it does not compile is an :class:`OptionError`.
    """

    name = "openvino"
    kept_windows = 1
    """Measured with 117 classes, in fp32 and bf16: as its kernels write them."""

    def _load(self, program: bytes | Path) -> None:
        openvino, core = imported("openvino"), openvino_core()
        hint = openvino.Type.bf16 if self.precision == "bf16" else openvino.Type.f32
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": "1",
        }
        try:
            model = core.read_model(program)
            model.reshape([1, *self.window])
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as problem:
            lines = str(problem).strip().splitlines() or ["no reason given"]
            raise OptionError(
                f"OpenVINO does not compile this model's program ({lines[-1].strip()[:200]})", remedy=_TORCH
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
        # Written where they are wanted: of many classes another copy would be a GB. The request does not keep this
        # array alive: each call gives it one before it computes.
        logits_BK: NDArray[np.float32] = np.empty(self._shape_BK, np.float32)
        self._request.set_output_tensor(0, self._tensor(logits_BK, shared_memory=True))
        self._request.infer([window_BC], share_inputs=True, share_outputs=True)
        return logits_BK


class OnnxEngine(ProgramEngine):
    """Microsoft's ONNX Runtime on the CPU, in fp32, with as many threads as torch has."""

    name = "onnx"
    kept_windows = 1

    def __init__(self, program: bytes | Path, *, window: tuple[int, ...], precision: str = "auto") -> None:
        if precision not in ("auto", "fp32"):
            resolve_precision(precision, CPU)  # one that is unknown altogether is told so
            raise OptionError(
                f"ONNX Runtime does not compute in {precision} on a CPU",
                remedy="choose --precision fp32, or --engine torch",
            )
        super().__init__(program, window=window, precision="fp32")

    def _load(self, program: bytes | Path) -> None:
        onnxruntime = imported("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        source = str(program) if isinstance(program, Path) else program
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def _run(self, window_BC: NDArray[np.float32]) -> NDArray[np.float32]:
        logits_BK: NDArray[np.float32] = self._session.run(None, {self._input: window_BC})[0]
        return logits_BK


_TORCH = "choose --engine torch to predict without it"
_PACKAGES = {
    "openvino": ("OpenVINO", "openvino", _TORCH),
    "onnxruntime": ("ONNX Runtime", "onnx", _TORCH),
    "onnx": ("ONNX", "onnx", _TORCH),
    "nncf": ("NNCF", "int8", "leave out --int8"),
}


def openvino_core() -> Any:
    """OpenVINO's ``Core``, one for the process and kept to its end.

    Each (of 2026.4, on CPUs with AVX512) gives signals a stack of their own, and takes it away when it is freed. Of two
    that are freed in the order in which they were made the second puts back the first's, which is gone: the next ctrl-C
    then ends Python instead of a training.

    Raises:
        OptionError: OpenVINO is missing or does not load.
    """
    return _the_only(imported("openvino").Core)


@lru_cache
def _the_only(kind: Callable[[], Any]) -> Any:
    return kind()


def imported(package: str) -> Any:
    """An optional package.

    Raises:
        OptionError: it is missing or does not load; with what to install.
    """
    title, extra, otherwise = _PACKAGES[package]
    try:
        return import_module(package)
    except ImportError as problem:
        why = "is not installed" if isinstance(problem, ModuleNotFoundError) else f"does not load: {problem}"
        raise OptionError(
            f"this needs {title}, which {why}",
            remedy=f"{how_to_install(extra)}, or {otherwise}",
        ) from problem
