"""What CUDA may do to compute a network faster: TensorFloat-32, and trying out which convolution is the fastest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fast_kernels(device: torch.device) -> Iterator[None]:
    """While a network computes on ``device``; afterwards torch's switches are as they were. Nothing but on CUDA.

    - Float32 is multiplied in TensorFloat-32 (10 bits of mantissa, since Ampere). For convolutions that is torch's own
      default and left as it is; matrix products are switched here, unless somebody has set them by torch's newer
      ``fp32_precision``. Resampling and scores are outside, in full float32.
    - cuDNN measures, for each new shape, which of its algorithms is the fastest. Patches and windows always have one
      shape. Not where torch is told to be deterministic: another algorithm might win the next time.
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
    except RuntimeError:  # set by torch's newer interface; the two must not be mixed
        return None


@contextmanager
def determinism_kept() -> Iterator[None]:
    """Whatever is asked of torch within, afterwards it is as deterministic as before."""
    enabled, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
