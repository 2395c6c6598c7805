"""PyTorch: computes every network, on every device."""

from __future__ import annotations

import logging
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from decathlete.core.choices import Layout
from decathlete.core.memory import is_out_of_memory
from decathlete.errors import InsufficientMemoryError
from decathlete.inference.engines import ENGINES, Engine
from decathlete.networks.kernels import fast_kernels
from decathlete.networks.layout import apply_layout
from decathlete.networks.precision import PRECISIONS, autocast, resolve_precision, supported_precision
from decathlete.planning.plan import Plan

log = logging.getLogger(__name__)


@ENGINES.register("torch")
class TorchEngine(Engine):
    """PyTorch, on CPUs, CUDA and Apple's MPS.

    Args:
        network: in evaluation mode, with the full-resolution logits as its output.
        device: the network is moved there; ``None`` leaves it where its parameters are.
        precision: ``auto`` (the device's fastest), ``fp32``, ``bf16`` or ``fp16``.
        layout: of feature maps in memory, for networks that can choose it.

    Raises:
        ValueError: the network is in training mode (dropout and auxiliary heads would change the prediction).
    """

    devices = ("cpu", "cuda", "mps")
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS
    follows_layout = True
    tolerance = 0.0

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
        self._precision = resolve_precision(precision, self.device)
        self.precision = self._precision
        self.network = network.to(self.device)
        self._largest_batch: int | None = None  # once a batch did not fit
        apply_layout(network, layout, device=self.device, precision=self._precision)

    @classmethod
    def relative_speed(cls, device: torch.device) -> float:  # noqa: ARG003 - the same on every device
        """1, by definition."""
        return 1.0

    @classmethod
    def from_network(
        cls,
        settings: Any,  # noqa: ARG003 - it has none
        network: nn.Module,
        plan: Plan,
        *,
        device: torch.device,
        precision: str,
        layout: Layout,
    ) -> Self:
        """Return an engine that computes ``network``, in a precision that its architecture supports."""
        resolved = resolve_precision(precision, device)
        precision = supported_precision(resolved, plan.network, requested=precision)
        return cls(network, device=device, precision=precision, layout=layout)

    @torch.inference_mode()
    def __call__(self, windows: Tensor) -> Tensor:
        """Compute float32 logits of float32 windows.

        A batch that does not fit into memory is computed in halves, these in halves again, down to single windows; the
        batch size that fits is used from then on.

        Raises:
            InsufficientMemoryError: not even one window fits.
        """
        while True:
            size = min(self._largest_batch or len(windows), len(windows))
            logits = self._compute(windows, size)
            if logits is not None:
                return logits
            if size == 1:
                raise InsufficientMemoryError(
                    f"the memory of {self.device} is too small for one window of {tuple(windows.shape[2:])}",
                    remedy="free memory there, or choose another --device (the CPU usually has the most memory)",
                )
            self._largest_batch = size // 2
            log.warning("out of memory on %s: computing %d windows at a time from now on", self.device, size // 2)

    def _compute(self, windows: Tensor, size: int) -> Tensor | None:
        """Compute ``size`` windows at a time; ``None`` when memory runs out.

        A function of its own: the tensors that filled the memory are freed when it returns.
        """
        try:
            with fast_kernels(self.device), autocast(self._precision, self.device):
                parts = [self.network(part.to(self.device)).float() for part in torch.split(windows, size)]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        except (RuntimeError, MemoryError) as problem:
            if not is_out_of_memory(problem):
                raise
            return None


def _device_of(network: nn.Module) -> torch.device:
    parameter = next(network.parameters(), None)
    return parameter.device if parameter is not None else torch.device("cpu")
