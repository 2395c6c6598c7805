"""Copies of small host arrays to the training device that do not make the host wait for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return the array as a tensor on ``device`` (int64 or float32).

    Through pinned memory: a copy from pageable memory would make the host wait for all work queued on the GPU.
    """
    tensor = torch.from_numpy(array.astype(np.int64 if array.dtype.kind in "iu" else np.float32))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def put_rows(target: Tensor, index: NDArray[np.int64], values: Tensor) -> None:
    """Set ``target[index] = values`` along the first axis: in one kernel on a GPU, row by row on a CPU.

    On a CPU rows are few and large, and ``index_copy_`` takes several times as long as copying them.
    """
    if target.device.type == "cpu":
        for i, row in zip(index.tolist(), values, strict=True):
            target[i].copy_(row)
    else:
        target.index_copy_(0, to_device(index, target.device), values)
