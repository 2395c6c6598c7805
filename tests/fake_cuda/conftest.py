"""A CUDA device made of fake tensors: shapes, types, devices and memory layouts are real, numbers are not.

Tensors on the CPU are computed as ever. Tensors on CUDA are fake (``torch._subclasses.FakeTensor``): an operation on
tensors of two devices raises, as it does on a GPU. Each operation for which the host waits for the GPU is recorded in
``FakeCuda.waits``; every number that the host then reads is 1, and every comparison is false. A backward pass needs a
driver: here it gives every weight a gradient of zeros.

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
from torch.utils._pytree import tree_leaves, tree_map_only

_aten = torch.ops.aten


# They change their arguments alone, and torch knows no fake version of them.
_IN_PLACE = (
    _aten._fused_sgd_.default,
    _aten._amp_foreach_non_finite_check_and_unscale_.default,
    _aten._amp_update_scale_.default,
)


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

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "aten":
            with self:  # in inference mode operations come whole, else in their parts
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not any(isinstance(tensor, FakeTensor) for tensor in tensors) and not _is_cuda(kwargs.get("device")):
            return func(*args, **kwargs)
        if func is _aten._local_scalar_dense.default:
            self.waits.append("item")
            return args[0].dtype is not torch.bool and torch.ones((), dtype=args[0].dtype).item()
        if func in _IN_PLACE:
            if {tensor.device for tensor in tensors} != {self.device}:
                raise RuntimeError(f"{func}: tensors of several devices")
            return args[0] if func is _aten._amp_update_scale_.default else None
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
        return torch.ones(result.shape, dtype=result.dtype) if device.type == "cpu" else result

    def _note_mask(self, args: Any) -> None:
        """An assignment by a mask makes indices of it first; with one value of the CPU torch fills by the mask."""
        masked = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        if masked and not (args[2].numel() == 1 and args[2].device.type == "cpu"):
            self.waits.append("index_put")

    def _is_pinned(self, tensor: Tensor) -> bool:
        return not isinstance(tensor, FakeTensor) and tensor.untyped_storage().data_ptr() in self._pinned

    def pin(self, tensor: Tensor) -> Tensor:
        """A copy that counts as pinned; for ``Tensor.pin_memory``, also in threads that do not see this mode."""
        if isinstance(tensor, FakeTensor):
            raise RuntimeError("cannot pin a tensor on CUDA: only dense CPU tensors can be pinned")
        pinned = tensor.clone()
        if pinned.numel():
            self._pinned[pinned.untyped_storage().data_ptr()] = pinned
        return pinned


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    if id(tensor) not in memo:
        copy = tensor.detach().clone()
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        memo[id(tensor)] = torch.nn.Parameter(copy, tensor.requires_grad) if is_parameter else copy
    return memo[id(tensor)]


def _fill_gradients(loss: Tensor) -> None:
    """In place of a backward pass: every weight that the loss depends on has a gradient on its own device."""
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            node.variable.grad = torch.zeros_like(node.variable)
        nodes += [before for before, _ in node.next_functions]


def _numbered(argument: Any) -> Any:
    if isinstance(argument, str | torch.device) and torch.device(argument) == torch.device("cuda"):
        return torch.device("cuda", 0)
    return argument


def _move(module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
    """``Module.to``, which cannot exchange fake parameters; those stay."""
    for part in module.modules():
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else buffer.to(*args, **kwargs)
        for name, weight in part._parameters.items():
            if weight is not None and not isinstance(weight, FakeTensor):
                part._parameters[name] = torch.nn.Parameter(weight.detach().to(*args, **kwargs), weight.requires_grad)
    return module


class _AnyGenerator(torch.Generator):
    """A generator of the CPU for any device: one of CUDA needs a driver, and its numbers are not real here."""

    def __new__(cls, device: Any = None) -> _AnyGenerator:
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
    monkeypatch.setattr(torch.cuda, "device", type("device", (nullcontext,), {}))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (properties.major, properties.minor))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: properties.name)
    monkeypatch.setattr(torch, "Generator", _AnyGenerator)
    # A fake tensor asks for its numbers one by one.
    monkeypatch.setattr(FakeTensor, "tolist", lambda self: self.cpu().tolist())
    # Without a driver, torch does not know which device the one without a number is.
    tensor_to = Tensor.to
    monkeypatch.setattr(Tensor, "to", lambda self, *a, **k: tensor_to(self, *map(_numbered, a), **k))
    monkeypatch.setattr(torch.nn.Module, "to", _move)
    monkeypatch.setattr(torch.nn.Module, "cpu", lambda self: self)
    monkeypatch.setattr(FakeTensor, "__deepcopy__", _copied)
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda content, path: save(tree_map_only(FakeTensor, Tensor.cpu, content), path))
    monkeypatch.setattr(Tensor, "backward", _fill_gradients)
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda"): made on the CPU, then copied
    try:
        with FakeCuda() as mode:
            monkeypatch.setattr(Tensor, "pin_memory", lambda self: mode.pin(self))
            yield mode
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
