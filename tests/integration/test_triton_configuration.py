"""A real Triton Inference Server reads all configurations, also those that need a GPU or NVIDIA's container.

Small programs take the place of the backends: what is checked is the server's own reading of ``config.pbtxt``.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decathlete.errors import OptionError
from decathlete.export.triton_config import network_config
from decathlete.export.triton_options import TritonSettings
from decathlete.serving.triton.backend_folder import write_backends
from decathlete.serving.triton.client import TritonClient
from decathlete.serving.triton.protocol import ClientOptions, InferenceRequest
from decathlete.serving.triton.server import (
    TritonServerOptions,
    free_ports,
    server_command,
    server_environment,
    stop,
    wait_until_ready,
)
from triton_server_support import require_server

pytestmark = pytest.mark.full
ECHO = """import triton_python_backend_utils as backend


class TritonPythonModel:
    def execute(self, requests):
        inputs = [backend.get_input_tensor_by_name(request, "windows") for request in requests]
        return [backend.InferenceResponse([backend.Tensor.from_dlpack("logits", each)]) for each in inputs]
"""
PROFILE = {"dynamic_shapes": True, "min_shape": (8, 8, 8), "max_shape": (32, 32, 32)}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cached": {"response_cache": True, "resources": {"R": 2}, "priority": 1, "instances": 2},
    "plan": {"format": "tensorrt", "precision": "fp16", "cuda_graphs": True, **PROFILE},
    "accelerated": {"accelerator": "tensorrt", "precision": "fp16", **PROFILE},
    "on_openvino": {"accelerator": "openvino", "instance_kind": "cpu"},
    "bf16": {"format": "openvino", "precision": "bf16", "threads": 2, "version_policy": "specific:1"},
    "on_gpu": {"format": "tensorrt", "instance_kind": "gpu", "instances": 2},
    "package": {"format": "aotinductor"},
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server with one model of all; the address of its HTTP service."""
    folder, server = tmp_path_factory.mktemp("triton"), require_server()
    for name, fields in SETTINGS.items():
        write_model(folder / "repository" / name, TritonSettings(**fields))
    http, grpc, metrics = free_ports(3)
    options = TritonServerOptions(
        http_port=http, grpc_port=grpc, metrics_port=metrics, control="explicit", load=("plain",)
    )
    backends = write_backends(server, folder / "backends")
    command = server_command(server, folder / "repository", options, backends=backends)
    if backends is not None:
        for name in ("onnxruntime", "openvino", "pytorch", "tensorrt"):
            (backends / name).mkdir(exist_ok=True)
            (backends / name / "model.py").write_text(ECHO)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=server_environment(server, os.environ), stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_until_ready(process, options)
            yield f"127.0.0.1:{http}"
        finally:
            stop(process)


def write_model(folder: Path, settings: TritonSettings) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "1" / settings.traits.file).touch()
    (folder / "config.pbtxt").write_text(network_config(settings, folder.name, window=(1, 8, 8, 8), n_outputs=1))


@pytest.fixture
def load(address: str) -> Callable[[str], dict[str, Any]]:
    """Load a model; the configuration that the server has of it, or its error."""

    def ask(method: str, path: str) -> bytes:
        request = urllib.request.Request(f"http://{address}/v2/{path}", data=b"" if method == "POST" else None)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                content: bytes = answer.read()
        except urllib.error.HTTPError as problem:
            content = problem.read()
        return content

    def load_one(name: str) -> dict[str, Any]:
        failed = ask("POST", f"repository/models/{name}/load")
        found: dict[str, Any] = json.loads(failed or ask("GET", f"models/{name}/config"))
        return found

    return load_one


def test_the_server_reads_plans_and_accelerators(load: Callable[[str], dict[str, Any]]) -> None:
    assert load("plan")["optimization"]["cuda"]["graphs"] is True
    (tensorrt,) = load("accelerated")["optimization"]["execution_accelerators"]["gpu_execution_accelerator"]
    assert tensorrt["name"] == "tensorrt"
    assert tensorrt["parameters"]["trt_profile_max_shapes"] == "windows:8x1x32x32x32"
    (openvino,) = load("on_openvino")["optimization"]["execution_accelerators"]["cpu_execution_accelerator"]
    assert openvino["name"] == "openvino"
    assert load("bf16")["parameters"]["HINT_BF16"] == {"string_value": "YES"}


def test_the_server_reads_what_it_cannot_have(load: Callable[[str], dict[str, Any]]) -> None:
    assert "KIND_GPU but no GPUs are available" in load("on_gpu")["error"]
    assert "failed to load" in load("package")["error"]  # this server does not know packages of AOTInductor


def test_the_response_cache_and_the_rate_limiter_work(load: Callable[[str], dict[str, Any]], address: str) -> None:
    (group,) = load("cached")["instance_group"]
    assert group["rate_limiter"] == {"resources": [{"name": "R", "global": False, "count": 2}], "priority": 1}
    windows = np.arange(512, dtype=np.float32).reshape(1, 1, 8, 8, 8)
    with TritonClient.connect(ClientOptions(protocol="http", address=address)) as client:
        request = InferenceRequest(model="cached", inputs={"windows": windows})
        for _ in range(3):
            np.testing.assert_array_equal(client.infer(request)["logits"], windows)
        assert client.statistics("cached").executions < 3


def test_a_package_is_rejected_before_the_wheels_server_starts(tmp_path: Path) -> None:
    server = require_server()
    if server.stubs is None:
        pytest.skip("this server is no wheel's")
    write_model(tmp_path / "package", TritonSettings(format="aotinductor"))
    with pytest.raises(OptionError, match="AOTInductor"):
        server_command(server, tmp_path, TritonServerOptions(), backends=None)
