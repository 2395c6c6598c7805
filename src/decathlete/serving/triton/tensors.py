"""Exchange tensors with Triton's Python backend by DLPack.

The backend's own conversion to and from numpy arrays is made for numpy 1: with numpy 2 it returns wrong numbers and
empty outputs, without an error. DLPack does not depend on the version of numpy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def read_tensor(request: Any, name: str, backend: Any) -> Tensor | None:
    """Return an input of a request, on the CPU; ``None`` if the request lacks it."""
    tensor = backend.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    found: Tensor = torch.utils.dlpack.from_dlpack(tensor.to_dlpack())
    return found.cpu()


def make_tensor(name: str, tensor: Tensor, backend: Any) -> Any:
    """Return an output of a response."""
    return backend.Tensor.from_dlpack(name, tensor.contiguous())


def check_exchange(backend: Any) -> None:
    """Exchange a tensor with the backend once, and raise an error if it changes.

    Raises:
        RuntimeError: it changes; the message says what to do.
    """
    sent = torch.arange(24, dtype=torch.float32).reshape(1, 2, 3, 4)
    returned = torch.utils.dlpack.from_dlpack(backend.Tensor.from_dlpack("check", sent).to_dlpack())
    if not torch.equal(sent, returned):
        raise RuntimeError(
            "Triton's Python backend changes tensors in this Python environment: use the versions of numpy and torch "
            "that Decathlete's constraints.txt names"
        )
