"""The number format in which a network computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from decathlete.core import choices
from decathlete.errors import OptionError
from decathlete.planning.architectures import architecture_of
from decathlete.planning.compute_budget import Arithmetic
from decathlete.planning.network_spec import NetworkSpec

Precision = choices.Precision

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def default_precision(device: torch.device) -> Precision:
    """Return the fastest precision that is safe on ``device``.

    This is bfloat16 if the hardware supports it: GPUs since Ampere, CPUs with AVX512-BF16 or AMX. Other hardware
    emulates it, tens of times slower than float32. Older CUDA devices use float16.
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
    """Return whether the CPU has AMX tiles."""
    return _cpu_has("_is_amx_tile_supported")


def cpu_arithmetic(precision: Precision) -> Arithmetic:
    """Return how this CPU computes convolutions in ``precision``."""
    if precision != "bf16":
        return "fp32"
    return "bf16_tiles" if has_tiles() else "bf16"


def _cpu_has(name: str) -> bool:
    check = getattr(torch.cpu, name, None)  # private in torch, and not in every build
    return check is not None and bool(check())


def resolve_precision(precision: str, device: torch.device) -> Precision:
    """Return the precision for an option; ``auto`` means :func:`default_precision`.

    Raises:
        OptionError: it is unknown, or float16 on a CPU (its range needs loss scaling and its kernels are slow there).
    """
    if precision == "auto":
        return default_precision(device)
    for known in PRECISIONS:
        if precision == known and not (known == "fp16" and device.type == "cpu"):
            return known
    problem = "is not for CPUs" if precision in PRECISIONS else "is unknown"
    raise OptionError(f"precision {precision!r} {problem}", remedy=f"choose auto, {', '.join(PRECISIONS)}")


def supported_precision(precision: Precision, spec: NetworkSpec, *, requested: str) -> Precision:
    """Return ``precision`` if the network's architecture computes in it, else another one if the user left the choice.

    Args:
        requested: by the user, ``auto`` or a precision.

    Raises:
        OptionError: the user requested a precision that the architecture does not compute in.
    """
    supported = architecture_of(spec).precisions
    if precision in supported:
        return precision
    if requested == "auto":
        return "fp32" if "fp32" in supported else supported[0]
    raise OptionError(
        f"the architecture {spec.architecture} does not compute in {precision}",
        remedy=f"choose auto or {' or '.join(supported)}",
    )


def no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context without autocast, also inside one with it."""
    if not torch.amp.is_autocast_available(device.type):  # meta
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which a forward pass runs in ``precision``."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])
