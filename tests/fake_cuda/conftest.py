"""A CUDA device made of fake tensors: shapes, types, devices and memory layouts are real, numbers are not.

Tensors on the CPU are computed as ever. Tensors on CUDA are fake (``torch._subclasses.FakeTensor``): an operation on
tensors of two devices raises, as it does on a GPU. Each operation for which the host waits for the GPU is recorded in
``FakeCuda.waits``; whatever it reads from the GPU is 0. Backward passes need a driver and are not possible.

Torch must have been built for CUDA (``make fake-cuda``); without that, every test of this folder is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten


class _DriverlessMode(FakeTensorMode):
    """Never touches the device, although ``torch.cuda`` says that there is one."""

    avoid_device_init = True


class FakeCuda(TorchDispatchMode):
    """Computes on the CPU for real and on CUDA with fake tensors.

    Attributes:
        device: the only one.
        waits: the operations for which the host waited for the device, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cuda", 0)
        self.waits: list[str] = []
        self._fake = _DriverlessMode(allow_non_fake_inputs=True)
        self._pinned: dict[int, Tensor] = {}  # kept alive, so that no other storage gets the same address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ARG002
        kwargs = kwargs or {}
        if func is _aten.is_pinned.default:
            return self._is_pinned(args[0])
        if func in (_aten._pin_memory.default, _aten.pin_memory.default):
            return self._pin(args[0])
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not any(isinstance(tensor, FakeTensor) for tensor in tensors) and not _is_cuda(kwargs.get("device")):
            return func(*args, **kwargs)
        if func is _aten._local_scalar_dense.default:
            self.waits.append("item")
            return args[0].dtype.is_floating_point and 0.0 or (False if args[0].dtype is torch.bool else 0)
        if func in (_aten._to_copy.default, _aten.copy_.default):
            return self._copy(func, args, kwargs)
        if func in (_aten.index_put.default, _aten.index_put_.default):
            self._note_mask(args)
        with self._fake:
            return func(*args, **kwargs)

    def _copy(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Between devices the host waits, unless the copy is non-blocking and the memory of the host is pinned."""
        target = args[0] if func is _aten.copy_.default else None
        source = args[0] if target is None else args[1]
        device = target.device if target is not None else torch.device(kwargs.get("device") or source.device)
        if {device.type, source.device.type} == {"cpu", "cuda"} and source.numel():
            non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            on_host = source if source.device.type == "cpu" else target
            if not (non_blocking and on_host is not None and self._is_pinned(on_host)):
                self.waits.append(f"copy to {device.type}")
        if device.type == "cpu" and target is not None:
            return target
        with self._fake:
            result = func(*args, **kwargs)
        return torch.zeros(result.shape, dtype=result.dtype) if device.type == "cpu" else result

    def _note_mask(self, args: Any) -> None:
        """An assignment by a mask makes indices of it first; with one value of the CPU torch fills by the mask."""
        masked = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        if masked and not (args[2].numel() == 1 and args[2].device.type == "cpu"):
            self.waits.append("index_put")

    def _is_pinned(self, tensor: Tensor) -> bool:
        return not isinstance(tensor, FakeTensor) and tensor.untyped_storage().data_ptr() in self._pinned

    def _pin(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, FakeTensor):
            raise RuntimeError("cannot pin a tensor on CUDA: only dense CPU tensors can be pinned")
        pinned = tensor.clone()
        if pinned.numel():
            self._pinned[pinned.untyped_storage().data_ptr()] = pinned
        return pinned


class _AnyGenerator(torch.Generator):
    """A generator of the CPU for any device: one of CUDA needs a driver, and its numbers are not real here."""

    def __new__(cls, device: Any = None) -> _AnyGenerator:  # noqa: ARG004
        return super().__new__(cls)


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A machine with one GPU of compute capability 8.0; the test is skipped where torch has no CUDA."""
    if not torch.backends.cuda.is_built():
        pytest.skip("torch is not built for CUDA: run `make fake-cuda`")
    properties = SimpleNamespace(name="Fake GPU", major=8, minor=0, total_memory=80 * 2**30, uuid="0")
    if torch.cuda.is_available():  # torch notes that CUDA is initialized, and must not note it of the fake device
        torch.cuda.init()
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: properties.name)
    monkeypatch.setattr(torch, "Generator", _AnyGenerator)
    # A fake tensor asks for its numbers one by one.
    monkeypatch.setattr(FakeTensor, "tolist", lambda self: self.cpu().tolist())
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda"): made on the CPU, then copied
    try:
        with FakeCuda() as mode:
            yield mode
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
