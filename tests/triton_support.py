"""A Triton server of a few lines, for its clients, and the module that Triton's Python backend has."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import numpy as np
import torch

Compute = Callable[[np.ndarray], np.ndarray]


@contextmanager
def fake_server(
    compute: Compute,
    *,
    fail_first: int = 0,
    regions: list[tuple[str, Any]] | None = None,
    kind: str = "KIND_CPU",
    statistics: Iterable[dict[str, Any]] = (),
) -> Iterator[str]:
    """Serve a network named NAME_network over HTTP; the first requests are answered with 503.

    Args:
        regions: receives the requests about shared memory: path and body.
        kind: of the model's instances.
        statistics: of the model, each time they are asked for.
    """
    statistics = iter(statistics)
    failures = [fail_first]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def answer(self, status: int, body: bytes, header_length: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if header_length is not None:
                self.send_header("Inference-Header-Content-Length", str(header_length))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if "_network" not in self.path:
                self.answer(400, json.dumps({"error": "unknown model"}).encode())
                return
            ends = {"inputs": "windows", "outputs": "logits"}
            about: dict[str, Any] = {end: [{"name": name, "shape": ["-1", "1"]}] for end, name in ends.items()}
            if self.path.endswith("/config"):
                about = {"instance_group": [{"kind": kind}]}
            elif self.path.endswith("/stats"):
                about = {"model_stats": [next(statistics)]}
            self.answer(200, json.dumps(about).encode())

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"] or 0))
            if "sharedmemory" in self.path and regions is not None:
                regions.append((self.path, json.loads(content or b"{}")))
                self.answer(200, b"")
                return
            if failures[0]:
                failures[0] -= 1
                self.answer(503, b"")
                return
            length = int(self.headers["Inference-Header-Content-Length"])
            shape = json.loads(content[:length])["inputs"][0]["shape"]
            logits = compute(np.frombuffer(content[length:], np.float32).reshape(shape))
            output = {"name": "logits", "datatype": "FP32", "shape": list(logits.shape)}
            header = json.dumps({"outputs": [{**output, "parameters": {"binary_data_size": logits.nbytes}}]}).encode()
            self.answer(200, header + logits.tobytes(), len(header))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class FakeTensor:
    """Has what :mod:`decathlete.serving.triton.tensors` uses of a tensor."""

    def __init__(self, name: str, tensor: torch.Tensor) -> None:
        self.name, self.tensor = name, tensor

    @classmethod
    def from_dlpack(cls, name: str, tensor: torch.Tensor) -> FakeTensor:
        return cls(name, tensor.clone())

    def to_dlpack(self) -> Any:
        return torch.utils.dlpack.to_dlpack(self.tensor)


class FakeError:
    INVALID_ARG = 3

    def __init__(self, message: str, code: int = 0) -> None:
        self.message, self.code = message, code


class FakeResponse:
    def __init__(self, output_tensors: list[FakeTensor], error: FakeError | None = None) -> None:
        self.outputs = {tensor.name: tensor.tensor.numpy() for tensor in output_tensors}
        self.error = error


class FakeRequest:
    def __init__(self, *, parameters: str = "", **inputs: np.ndarray) -> None:
        self.inputs = {name: torch.from_numpy(np.array(value)) for name, value in inputs.items()}
        self._parameters = parameters

    def parameters(self) -> str:
        return self._parameters


class FakeLogger:
    """Collects what a model writes to the server's log."""

    warnings: ClassVar[list[str]] = []

    @classmethod
    def log_warn(cls, text: str) -> None:
        cls.warnings.append(text)


class FakeBackend:
    """Takes the place of the module ``triton_python_backend_utils``."""

    Logger = FakeLogger

    Tensor = FakeTensor
    TritonError = FakeError
    InferenceResponse = FakeResponse

    @staticmethod
    def get_input_tensor_by_name(request: FakeRequest, name: str) -> FakeTensor | None:
        value = request.inputs.get(name)
        return None if value is None else FakeTensor(name, value)
