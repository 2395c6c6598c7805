"""What computes a network: windows in, logits out. Models of other runtimes join by the same protocol."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from decathlete.errors import OptionError
from decathlete.networks.layout import preferred_memory_format
from decathlete.networks.precision import autocast, resolve_precision
from decathlete.networks.unet import UNet


class Engine(Protocol):
    """Something that turns a batch of windows into logits.

    Attributes:
        name: of the runtime, for the record (``"torch"``).
        precision: it computes in, for the record (``"fp32"``).
        device: where it wants its windows and leaves its logits.
    """

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    def __call__(self, windows: Tensor) -> Tensor:
        """Float32 windows (batch, channel, then 2 or 3 axes) to float32 logits (batch, class, the same axes)."""
        ...


class TorchEngine:
    """A network in eval mode, where it lies.

    Args:
        network: its single output in eval mode is the full-resolution logits.
        device: the network is moved there; ``None`` leaves it where its parameters are.
        precision: ``auto`` (the device's fastest), ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        ValueError: the network is in training mode (its dropout or heads would spoil the prediction).
    """

    name = "torch"

    def __init__(
        self, network: nn.Module, *, device: torch.device | str | None = None, precision: str = "auto"
    ) -> None:
        if network.training:
            raise ValueError("the network is in training mode; call its eval() first")
        self.device = torch.device(device) if device is not None else _device_of(network)
        self.precision = resolve_precision(precision, self.device)
        self.network = network.to(self.device)
        if isinstance(network, UNet):
            network.set_layout(preferred_memory_format(self.device, network.dims, self.precision))

    @torch.inference_mode()
    def __call__(self, windows: Tensor) -> Tensor:
        """Float32 logits of float32 windows.

        Raises:
            OptionError: the device's memory does not hold the batch.
        """
        try:
            with autocast(self.precision, self.device):
                logits: Tensor = self.network(windows.to(self.device))
        except torch.OutOfMemoryError:
            raise OptionError(
                f"{len(windows)} windows of {tuple(windows.shape[2:])} do not fit into the memory of {self.device}",
                remedy="choose a smaller batch size for prediction, or --device cpu",
            ) from None
        return logits.float()


def _device_of(network: nn.Module) -> torch.device:
    parameter = next(network.parameters(), None)
    return parameter.device if parameter is not None else torch.device("cpu")


def resolve_device(device: str) -> torch.device:
    """``auto`` is the first of CUDA, Apple's MPS and the CPU that is there.

    Raises:
        OptionError: an unknown device, or one that this machine does not have.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise OptionError(f"device {device!r} is unknown", remedy="choose auto, cpu, cuda, cuda:1 or mps") from None
    n_cuda = torch.cuda.device_count() if cuda else 0
    missing = (chosen.type == "cuda" and (chosen.index or 0) >= n_cuda) or (chosen.type == "mps" and not mps)
    if missing or chosen.type not in ("cpu", "cuda", "mps"):
        raise OptionError(f"device {device!r} is not available on this machine", remedy="choose auto or cpu")
    return chosen
