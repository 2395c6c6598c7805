"""Devices that networks run on."""

from __future__ import annotations

import torch

from decathlete.errors import OptionError


def resolve_device(device: str) -> torch.device:
    """Return the device that ``device`` names; ``auto`` is the first available of CUDA, Apple's MPS and the CPU.

    Raises:
        OptionError: an unknown device, or one that this machine does not have.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise OptionError(f"device {device!r} is unknown", remedy="choose auto, cpu, cuda, cuda:1 or mps") from None
    n_cuda = torch.cuda.device_count() if cuda else 0
    missing = (resolved.type == "cuda" and (resolved.index or 0) >= n_cuda) or (resolved.type == "mps" and not mps)
    if missing or resolved.type not in ("cpu", "cuda", "mps"):
        raise OptionError(f"device {device!r} is not available on this machine", remedy="choose auto or cpu")
    return resolved
