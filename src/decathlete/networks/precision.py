"""Which number format a device computes networks in, fastest."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from decathlete.errors import OptionError
from decathlete.planning.compute_budget import Arithmetic

Precision = Literal["fp32", "bf16", "fp16"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def default_precision(device: torch.device) -> Precision:
    """The fastest precision that is safe on ``device``.

    bfloat16 where the hardware computes in it: GPUs since Ampere, CPUs with AVX512-BF16 or AMX. Elsewhere it is
    emulated, tens of times slower than float32. Older CUDA devices take float16.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # torch answers for the current one
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        return "bf16" if _cpu_computes_bf16() else "fp32"
    return "fp32"


def _cpu_computes_bf16() -> bool:
    return has_tiles() or _cpu_has("_is_avx512_bf16_supported")


def has_tiles() -> bool:
    """Whether the CPU multiplies matrices in AMX tiles."""
    return _cpu_has("_is_amx_tile_supported")


def cpu_arithmetic(precision: Precision) -> Arithmetic:
    """How this CPU computes convolutions in ``precision``."""
    if precision != "bf16":
        return "fp32"
    return "bf16_tiles" if has_tiles() else "bf16"


def _cpu_has(name: str) -> bool:
    check = getattr(torch.cpu, name, None)  # private in torch, and not in every build
    return check is not None and bool(check())


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """``auto`` becomes :func:`default_precision`; anything else is checked.

    Raises:
        OptionError: unknown, or float16 on a CPU (its range needs loss scaling and its kernels are slow there).
    """
    if precision == "auto":
        return default_precision(device)
    for known in PRECISIONS:
        if precision == known and not (known == "fp16" and device.type == "cpu"):
            return known
    problem = "is not for CPUs" if precision in PRECISIONS else "is unknown"
    raise OptionError(f"precision {precision!r} {problem}", remedy=f"choose auto, {', '.join(PRECISIONS)}")


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """The context in which every operation keeps the type of its numbers, whatever is around it."""
    if not torch.amp.is_autocast_available(device.type):  # meta: no numbers, nothing to switch off
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a forward pass runs in ``precision``."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])
