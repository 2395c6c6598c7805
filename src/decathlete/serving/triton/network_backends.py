"""Triton backends for networks, in Python: ONNX Runtime, OpenVINO and PyTorch.

NVIDIA's container has these backends in C++. Where a server has only the Python backend, as in the wheel of
nvidia-pytriton, these take their place, so that the same repository runs unchanged. Triton loads the classes by
``model.py`` files that :mod:`decathlete.serving.triton.backend_folder` writes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from decathlete.core.documents import parse_json
from decathlete.serving.triton.tensors import check_exchange, make_tensor, read_tensor

Compute = Callable[[Tensor], Tensor]


class NetworkBackend(ABC):
    """Computes a network for Triton. Its methods have the names that the Python backend calls."""

    file: ClassVar[str]
    """Name of the program in the version's folder, unless the configuration has another."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the program."""
        import triton_python_backend_utils  # exists only in Triton's process

        self._backend: Any = triton_python_backend_utils
        check_exchange(self._backend)
        config = parse_json(args["model_config"])
        self._input, self._output = config["input"][0]["name"], config["output"][0]["name"]
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        file = config.get("default_model_filename") or self.file
        path = Path(args["model_repository"]) / args["model_version"] / file
        self._compute = self.load(path, parameters)

    @abstractmethod
    def load(self, path: Path, parameters: Mapping[str, str]) -> Compute:
        """Return a function from windows (batch, channels, *patch) to logits.

        Args:
            parameters: of the model's configuration.
        """

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Compute the requests that Triton has batched; those of one shape together."""
        windows = [read_tensor(request, self._input, self._backend) for request in requests]
        responses = []
        for _, group in groupby(windows, key=lambda tensor: None if tensor is None else tensor.shape[1:]):
            responses += self._respond(list(group))
        return responses

    def _respond(self, windows: Sequence[Tensor | None]) -> list[Any]:
        present = [tensor for tensor in windows if tensor is not None]
        try:
            logits = self._compute(torch.cat(present) if len(present) > 1 else present[0])
        except Exception as problem:  # a runtime's own errors, for shapes that the network cannot compute
            error = self._backend.TritonError(f"the network cannot compute these windows: {problem}")
            return [self._backend.InferenceResponse(output_tensors=[], error=error) for _ in windows]
        parts = torch.split(logits, [len(tensor) for tensor in present])
        return [
            self._backend.InferenceResponse([make_tensor(self._output, part.clone(), self._backend)]) for part in parts
        ]

    def finalize(self) -> None:
        """Release the program."""
        del self._compute


class OnnxBackend(NetworkBackend):
    """Takes the place of the backend ``onnxruntime``."""

    file = "model.onnx"

    def load(self, path: Path, parameters: Mapping[str, str]) -> Compute:
        """Open the program with ONNX Runtime, on the CPU."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", "0"))
        options.inter_op_num_threads = int(parameters.get("inter_op_thread_count", "0"))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda windows: torch.from_numpy(session.run(None, {name: windows.numpy()})[0])


class OpenVinoBackend(NetworkBackend):
    """Takes the place of the backend ``openvino``."""

    file = "model.xml"

    def load(self, path: Path, parameters: Mapping[str, str]) -> Compute:
        """Compile the program with OpenVINO, for the CPU."""
        from decathlete.inference.engines.openvino import openvino_core

        config = {"INFERENCE_PRECISION_HINT": "bf16" if parameters.get("HINT_BF16") == "YES" else "f32"}
        if "INFERENCE_NUM_THREADS" in parameters:
            config["INFERENCE_NUM_THREADS"] = parameters["INFERENCE_NUM_THREADS"]
        compiled = openvino_core().compile_model(str(path), "CPU", config)
        return lambda windows: torch.from_numpy(compiled(windows.numpy())[0].copy())


class TorchBackend(NetworkBackend):
    """Takes the place of the backend ``pytorch``, for TorchScript."""

    file = "model.pt"

    def load(self, path: Path, parameters: Mapping[str, str]) -> Compute:
        """Load the program with torch, on the CPU."""
        if "INTRA_OP_THREAD_COUNT" in parameters:
            torch.set_num_threads(int(parameters["INTRA_OP_THREAD_COUNT"]))
        program = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

        def compute(windows: Tensor) -> Tensor:
            with torch.inference_mode():
                logits: Tensor = program(windows)
            return logits.clone()

        return compute
