"""Tensors in shared memory: regions are filled, registered and freed; those of a GPU need one."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from decathlete.cli.main import app
from decathlete.errors import MissingPackageError, OptionError
from decathlete.serving.triton.client import TritonClient
from decathlete.serving.triton.protocol import ClientOptions
from decathlete.serving.triton.shared_memory import check_shared_memory, shared_regions
from triton_support import fake_server

pytest.importorskip("tritonclient.http")
WINDOWS = np.arange(8, dtype=np.float32).reshape(1, 1, 2, 2, 2)


class CudaMemory(ModuleType):
    """Has what is used of ``tritonclient.utils.cuda_shared_memory``."""

    def __init__(self) -> None:
        super().__init__("cuda_shared_memory")
        self.contents: dict[str, np.ndarray] = {}
        self.freed: list[str] = []

    def create_shared_memory_region(self, name: str, n_bytes: int, device_id: int) -> SimpleNamespace:
        return SimpleNamespace(name=name, n_bytes=n_bytes, device_id=device_id)

    def set_shared_memory_region(self, handle: SimpleNamespace, values: list[np.ndarray]) -> None:
        (self.contents[handle.name],) = values

    def get_raw_handle(self, handle: SimpleNamespace) -> bytes:
        return b"aGFuZGxl"

    def destroy_shared_memory_region(self, handle: SimpleNamespace) -> None:
        self.freed.append(handle.name)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaMemory:
    memory = CudaMemory()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("cuda", "cuda.bindings", "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "tritonclient.utils.cuda_shared_memory", memory)
    return memory


def test_regions_of_a_gpu_are_registered_and_freed(cuda: CudaMemory) -> None:
    requests: list[tuple[str, Any]] = []
    with (
        fake_server(lambda windows: windows, regions=requests) as address,
        TritonClient.connect(ClientOptions(protocol="http", address=address)) as client,
        shared_regions(client, {"windows": WINDOWS}, {"logits": 64}, memory="cuda") as regions,
    ):
        sizes = {name: region.n_bytes for name, region in regions.items()}
        assert cuda.freed == []
    assert sizes == {"windows": WINDOWS.nbytes, "logits": 64}
    names = [regions[name].name for name in ("windows", "logits")]
    np.testing.assert_array_equal(cuda.contents[names[0]], WINDOWS)
    assert sorted(cuda.freed) == sorted(names)
    paths = [path for path, _ in requests]
    assert paths == [
        *(f"/v2/cudasharedmemory/region/{name}/register" for name in names),
        *(f"/v2/cudasharedmemory/region/{name}/unregister" for name in reversed(names)),
    ]
    assert requests[0][1] == {"raw_handle": {"b64": "aGFuZGxl"}, "device_id": 0, "byte_size": WINDOWS.nbytes}


def test_a_region_that_is_rejected_is_freed(cuda: CudaMemory) -> None:
    with (
        fake_server(lambda windows: windows, fail_first=99) as address,
        TritonClient.connect(ClientOptions(protocol="http", address=address, retries=0)) as client,
        pytest.raises(Exception, match="no answer"),
        shared_regions(client, {"windows": WINDOWS}, {}, memory="cuda"),
    ):
        pass
    assert len(cuda.freed) == 1


def test_the_memory_of_a_gpu_needs_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(app, ["triton", "benchmark", str(tmp_path), "--shared-memory", "cuda"])
    assert isinstance(done.exception, OptionError)
    assert "needs a CUDA GPU" in str(done.exception)


def test_the_memory_of_a_gpu_names_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "cuda", None)
    with pytest.raises(MissingPackageError, match="pip install cuda-python, or use --shared-memory system"):
        check_shared_memory("cuda")
