"""CUDA settings that make networks faster: TensorFloat-32, and cuDNN's search for the fastest algorithm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fast_kernels(device: torch.device) -> Iterator[None]:
    """Use CUDA's fast kernels inside the context, and restore torch's settings afterwards. Other devices: no effect.

    - Float32 is multiplied in TensorFloat-32 (10 bits of mantissa, since Ampere). For convolutions this is torch's
      default and not changed; for matrix products it is set here, unless torch's newer ``fp32_precision`` is in use.
      Resampling and scores run outside, in full float32.
    - cuDNN measures, for each new shape, which of its algorithms is the fastest. Patches and windows always have one
      shape. Not with deterministic algorithms: another algorithm might be the fastest the next time.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    benchmark, precision = cudnn.benchmark, _matmul_precision()
    cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    if precision is not None:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        cudnn.benchmark = benchmark
        if precision is not None:
            torch.set_float32_matmul_precision(precision)


def _matmul_precision() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # set through torch's newer interface, which must not be mixed with this one
        return None


@contextmanager
def restore_determinism() -> Iterator[None]:
    """Restore torch's determinism settings on exit."""
    enabled, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
