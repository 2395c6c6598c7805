"""Inference engines: the runtimes that compute a trained network. Each is one module, found by its name::

    @ENGINES.register("tensorrt")
    class TensorRtEngine(Engine):
        devices = ("cuda",)

        @classmethod
        def from_network(cls, settings, network, plan, *, device, precision, layout): ...

        def __call__(self, windows): ...

``decathlete predict --engine NAME`` uses any registered engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

from decathlete.core.choices import Layout
from decathlete.core.registry import ComponentSettings, Registry

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from decathlete.planning.plan import Plan


USE_TORCH = "choose --engine torch to predict without it"
"""What to do where a model cannot be predicted with another engine."""


class Engine(ABC):
    """Computes the logits of windows.

    The attributes and methods of the class say what the engine can do; they are used before one is built.

    Attributes:
        devices: types of torch device that the engine computes on; the first is used where the default device is none
            of them.
        precisions: that it can have on some of these devices.
        follows_layout: whether ``--layout`` changes how it computes.
        tolerance: greatest difference of its fp32 logits from torch's, as a share of the greatest logit.
        program_file: main file of an exported program that it computes, e.g. ``"model.onnx"``; ``None``: it opens none.
        precision: of an engine that was built, for the record.
        device: of the windows and logits of an engine that was built.
        n_buffered_windows: windows whose logits stay in the engine's own memory, beside those that it returns.
    """

    class Settings(ComponentSettings):
        """Settings of the engine; there are none unless a subclass adds some."""

    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    follows_layout: ClassVar[bool] = False
    tolerance: ClassVar[float] = 1e-3
    program_file: ClassVar[str | None] = None

    precision: str
    device: torch.device
    n_buffered_windows: int = 0

    @property
    def name(self) -> str:
        """The registered name, for the record."""
        return self.Settings.component

    @classmethod
    def check_available(cls) -> None:
        """Raise the error that says why the engine cannot be used on this installation.

        Raises:
            MissingPackageError: a package is missing, or does not load.
        """
        return  # most need no optional package

    @classmethod
    def relative_speed(cls, device: torch.device) -> float:  # noqa: ARG003 - for engines that were measured
        """Return the speed on ``device`` as a multiple of torch's, as measured.

        ``--engine auto`` uses the fastest engine whose relative speed is at least 1.
        """
        return 0.0

    @classmethod
    def supports(cls, plan: Plan) -> bool:  # noqa: ARG003 - for engines that cannot compute every network
        """Return whether the engine computes networks of this plan's architecture."""
        return True

    @classmethod
    @abstractmethod
    def from_network(
        cls,
        settings: Any,
        network: nn.Module,
        plan: Plan,
        *,
        device: torch.device,
        precision: str,
        layout: Layout,
    ) -> Self:
        """Return an engine that computes ``network``.

        Args:
            settings: an instance of ``cls.Settings``.
            network: on the CPU, in evaluation mode, with the full-resolution logits as its output.
            precision: one of ``cls.precisions``, or ``auto``: the fastest that the engine has on ``device``.
            layout: of feature maps; other than ``auto`` only where ``cls.follows_layout``.

        Raises:
            OptionError: the engine does not have this precision here, or cannot compute the network.
            ModelError: the model is too large for the engine.
        """

    @classmethod
    def from_program(cls, settings: Any, path: Path, *, window: tuple[int, ...], precision: str) -> Self:
        """Return an engine that computes the exported program at ``path`` (for engines with a ``program_file``).

        Args:
            settings: an instance of ``cls.Settings``.
            window: shape of one window: channels, then the patch.
            precision: that the program was exported in.
        """
        raise NotImplementedError(f"the engine {cls.Settings.component} computes no exported programs")

    @abstractmethod
    def __call__(self, windows: Tensor) -> Tensor:
        """Compute float32 logits (batch, class, then 2 or 3 axes) of float32 windows (batch, channel, the same axes).

        The caller may overwrite the logits: no later call writes to them, and no earlier result shares their memory.
        """


ENGINES: Registry[Engine] = Registry("engine", package=__name__)
