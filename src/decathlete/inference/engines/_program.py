"""What engines of ONNX programs have in common.

Windows have the one size that the program is compiled for and are computed one at a time: on CPUs larger batches are
not faster (``docs/explanation/performance.md``).
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from decathlete.core.choices import Layout
from decathlete.core.memory import translate_out_of_memory
from decathlete.core.registry import ComponentSettings
from decathlete.inference.engines import USE_TORCH, Engine
from decathlete.networks.onnx_program import onnx_program
from decathlete.networks.precision import resolve_precision
from decathlete.planning.plan import Plan

CPU = torch.device("cpu")


class ProgramEngine(Engine):
    """Computes a program on the CPU.

    Args:
        program: in ONNX form, or a file that the engine opens.
        window: shape of a window, as the program is compiled for it: channels, then the patch.
        precision: ``auto`` (the fastest that the engine has on this CPU), or one of its own; ``int8`` only for programs
            that were quantised.
        threads: number of threads; ``None``: as many as torch.

    Raises:
        OptionError: the engine does not have this precision on this CPU, or does not compile the program.
        MissingPackageError: the package is missing, or does not load.
    """

    class Settings(ComponentSettings):
        threads: int | None = Field(default=None, ge=1, le=1024)
        """Number of threads; none: as many as torch. Logits of different numbers differ by rounding."""

    title: ClassVar[str]
    """Name of the runtime, for people."""
    n_buffered_windows = 1  # measured with 117 classes, in fp32 and bf16

    def __init__(
        self, program: bytes | Path, *, window: tuple[int, ...], precision: str = "auto", threads: int | None = None
    ) -> None:
        self.window = window
        self.device = CPU
        self.threads = threads or torch.get_num_threads()
        self.precision = precision if precision == "int8" else self.resolve_precision(precision)
        self._compile(program)

    @classmethod
    def resolve_precision(cls, precision: str) -> str:
        """Return the precision that ``precision`` means; ``auto``: the fastest on this CPU.

        Raises:
            OptionError: it is unknown, or not for CPUs.
        """
        return resolve_precision(precision, CPU)

    @classmethod
    def from_network(
        cls,
        settings: Any,
        network: nn.Module,
        plan: Plan,
        *,
        device: torch.device,  # noqa: ARG003 - the CPU, the only one in ``devices``
        precision: str,
        layout: Layout,  # noqa: ARG003 - ``auto``, for ``follows_layout`` is false
    ) -> Self:
        """Write the network as an ONNX program, and compile it."""
        window = (plan.n_inputs, *plan.patch_size)
        program = onnx_program([network], window=window, n_outputs=plan.labels.n_outputs, alternative=USE_TORCH)
        return cls(program, window=window, precision=precision, threads=settings.threads)

    @classmethod
    def from_program(cls, settings: Any, path: Path, *, window: tuple[int, ...], precision: str) -> Self:
        """Compile an exported program."""
        return cls(path, window=window, precision=precision, threads=settings.threads)

    @torch.inference_mode()
    def __call__(self, windows: Tensor) -> Tensor:
        """Compute float32 logits of float32 windows.

        Raises:
            InsufficientMemoryError: the feature maps of one window do not fit into memory.
        """
        if tuple(windows.shape[1:]) != self.window:
            raise ValueError(f"windows of {tuple(windows.shape[1:])} for a program that accepts {self.window}")
        remedy = "close other programs, or choose --engine torch"
        with translate_out_of_memory(f"the feature maps of one window of {self.window[1:]}", remedy=remedy):
            logits = [torch.from_numpy(self._run(window.contiguous().numpy())) for window in torch.split(windows, 1)]
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    @abstractmethod
    def _compile(self, program: bytes | Path) -> None:
        """Prepare to run the program."""

    @abstractmethod
    def _run(self, window_BC: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of one window (with a batch axis of 1), in memory of their own."""
