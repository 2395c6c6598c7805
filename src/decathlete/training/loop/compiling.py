"""A check whether torch can compile on this machine."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from decathlete.errors import OptionError


def check_compiler(device: torch.device) -> None:
    """Compile a small function for ``device`` before anything is written, to report missing compilers early.

    Raises:
        OptionError: it cannot be done, and why.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parts of torch, from other parts of it
            torch.compile(_small_function, dynamic=False)(torch.ones(16, device=device))
    except Exception as problem:  # whatever the compiler's many layers raise
        why = next((line for line in str(problem).splitlines() if line.strip()), type(problem).__name__)
        raise OptionError(
            f"--compile: nothing can be compiled for {device.type} here ({why.strip()})",
            remedy="install a C++ compiler (g++ or clang; for CUDA also Triton), or leave --compile out",
        ) from problem


def _small_function(x: Tensor) -> Tensor:
    return x * 2 + 1
