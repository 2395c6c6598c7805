"""Small host arrays on their way to the training device, without making the host wait for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor on ``device`` (int64 or float32).

    A copy from pageable memory would make the host wait until the GPU has done all it was asked so far.
    """
    tensor = torch.from_numpy(array.astype(np.int64 if array.dtype.kind in "iu" else np.float32))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def put_rows(target: Tensor, index: NDArray[np.int64], values: Tensor) -> None:
    """``target[index] = values`` along the first axis: one kernel on a GPU; on a CPU row by row.

    There rows are few and large, and ``index_copy_`` takes several times as long as copying them.
    """
    if target.device.type == "cpu":
        for place, row in zip(index.tolist(), values, strict=True):
            target[place].copy_(row)
    else:
        target.index_copy_(0, to_device(index, target.device), values)
