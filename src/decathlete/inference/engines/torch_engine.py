"""What computes a network: windows in, logits out. Models of other runtimes join by the same protocol."""

from __future__ import annotations

import logging
from typing import Protocol

import torch
from torch import Tensor, nn

from decathlete.core.choices import Layout
from decathlete.core.memory import is_out_of_memory
from decathlete.errors import InsufficientMemoryError, OptionError
from decathlete.networks.kernels import fast_kernels
from decathlete.networks.layout import apply_layout
from decathlete.networks.precision import autocast, resolve_precision

log = logging.getLogger(__name__)


class Engine(Protocol):
    """Something that turns a batch of windows into logits.

    Attributes:
        name: of the runtime, for the record (``"torch"``).
        precision: it computes in, for the record (``"fp32"``).
        device: where it wants its windows and leaves its logits.
        kept_windows: logits of so many windows stay in memory of its own, beside those that it returns.
    """

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def kept_windows(self) -> int: ...

    def __call__(self, windows: Tensor) -> Tensor:
        """Float32 windows (batch, channel, then 2 or 3 axes) to float32 logits (batch, class, the same axes).

        The logits are the caller's to change: no later call writes to them, and no earlier one reads them again.
        """
        ...


class TorchEngine:
    """A network in eval mode, where it lies.

    Args:
        network: its single output in eval mode is the full-resolution logits.
        device: the network is moved there; ``None`` leaves it where its parameters are.
        precision: ``auto`` (the device's fastest), ``fp32``, ``bf16`` or ``fp16``.
        layout: memory format of the feature maps.

    Raises:
        ValueError: the network is in training mode (its dropout or heads would spoil the prediction).
    """

    name = "torch"
    kept_windows = 0

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device | str | None = None,
        precision: str = "auto",
        layout: Layout = "auto",
    ) -> None:
        if network.training:
            raise ValueError("the network is in training mode; call its eval() first")
        self.device = torch.device(device) if device is not None else _device_of(network)
        self.precision = resolve_precision(precision, self.device)
        self.network = network.to(self.device)
        self._largest: int | None = None  # batch that fits, once one did not
        apply_layout(network, layout, device=self.device, precision=self.precision)

    @torch.inference_mode()
    def __call__(self, windows: Tensor) -> Tensor:
        """Float32 logits of float32 windows.

        A batch that does not fit into memory is computed in halves, these in halves again, down to single windows; what
        fits is remembered for the batches to come.

        Raises:
            InsufficientMemoryError: out of memory for a single window.
        """
        while True:
            size = min(self._largest or len(windows), len(windows))
            logits = self._computed(windows, size)
            if logits is not None:
                return logits
            if size == 1:
                raise InsufficientMemoryError(
                    f"out of memory on {self.device} for one window of {tuple(windows.shape[2:])}",
                    remedy="free memory there, or choose another --device (cpu has the most memory, mostly)",
                )
            self._largest = size // 2
            log.warning("memory of %s ran out: windows are now computed %d at a time", self.device, self._largest)

    def _computed(self, windows: Tensor, size: int) -> Tensor | None:
        """Logits, computed ``size`` windows at a time; ``None`` when memory runs out.

        A function of its own: only once it is left does nothing hold the tensors that were in the way.
        """
        try:
            with fast_kernels(self.device), autocast(self.precision, self.device):
                parts = [self.network(part.to(self.device)).float() for part in torch.split(windows, size)]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        except (RuntimeError, MemoryError) as problem:
            if not is_out_of_memory(problem):
                raise
            return None


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
