"""Which engine computes a model: what the user names, or the fastest that was measured and is installed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from decathlete.core.choices import EngineChoice, Layout
from decathlete.errors import ModelError, OptionError
from decathlete.inference.engines.program_engines import OnnxEngine, OpenVinoEngine, imported
from decathlete.inference.engines.torch_engine import Engine, TorchEngine, resolve_device
from decathlete.models.bundle import BundleMember
from decathlete.models.onnx_graph import onnx_program
from decathlete.networks.precision import resolve_precision, supported_precision
from decathlete.planning.plan import Plan

EngineName = Literal["torch", "openvino", "onnx"]

log = logging.getLogger(__name__)


def resolve_engine(
    engine: EngineChoice, *, device: str = "auto", precision: str = "auto", layout: Layout = "auto"
) -> tuple[EngineName, torch.device]:
    """The engine and where it computes.

    ``auto`` takes OpenVINO on a CPU where it is installed, which is what was measured to be faster
    (``docs/explanation/performance.md``), and torch elsewhere and where a ``layout`` is asked for. Nothing is timed
    here: the same machine with the same packages always chooses alike.

    Raises:
        OptionError: unknown, or not for this device, layout or installation.
    """
    if engine == "torch":
        return "torch", resolve_device(device)
    if engine == "auto":
        chosen = resolve_device(device)
        resolve_precision(precision, chosen)  # refuses one that is not for this device
        suited = chosen.type == "cpu" and layout == "auto"
        return ("openvino" if suited and openvino_is_there() else "torch"), chosen
    if engine not in ("openvino", "onnx"):
        raise OptionError(f"engine {engine!r} is unknown", remedy="choose auto, torch, openvino or onnx")
    if device != "auto" and resolve_device(device).type != "cpu":
        raise OptionError(
            f"the engine {engine} computes on the CPU, not on {device}",
            remedy="leave out --device, or choose --engine torch",
        )
    if layout != "auto":
        raise OptionError(f"the engine {engine} has a layout of its own", remedy="leave out --layout")
    for package in ("openvino", "onnx") if engine == "openvino" else ("onnxruntime", "onnx"):
        imported(package)
    return engine, torch.device("cpu")


def openvino_is_there() -> bool:
    """Whether ``auto`` can take it; an installation that does not load is told of."""
    try:
        for package in ("openvino", "onnx"):
            imported(package)
    except OptionError as problem:
        if "does not load" in problem.problem:
            log.warning("%s; torch predicts instead", problem.problem)
        return False
    return True


class EngineMaker:
    """Makes the engines of models.

    Args:
        or_torch: where the engine cannot compute a model, torch computes it and all that follow, with one warning: for
            an engine that nobody asked for.
    """

    def __init__(
        self,
        engine: EngineName,
        *,
        device: torch.device,
        precision: str,
        layout: Layout = "auto",
        or_torch: bool = False,
    ) -> None:
        self._engine, self._or_torch = engine, or_torch
        self._device, self._precision, self._layout = device, precision, layout

    def __call__(self, member: BundleMember) -> Sequence[Engine]:
        """An engine for each network of a model's member.

        Raises:
            OptionError: the engine has not this precision here, or does not compile the model.
            ModelError: the model is damaged, or too large for a program.
        """
        networks = member.build_all()
        try:
            return self._made(networks, member.plan)
        except (OptionError, ModelError) as problem:
            if not self._or_torch or self._engine == "torch":
                raise
            log.warning("%s; torch predicts instead", problem.problem)
            self._engine = "torch"
            return self._made(networks, member.plan)

    def _made(self, networks: Sequence[nn.Module], plan: Plan) -> Sequence[Engine]:
        precision = self._precision
        if self._engine == "torch":
            resolved = resolve_precision(precision, self._device)
            precision = supported_precision(resolved, plan.network, requested=precision)
            return [TorchEngine(n, device=self._device, precision=precision, layout=self._layout) for n in networks]
        make = OpenVinoEngine if self._engine == "openvino" else OnnxEngine
        window = (plan.network.in_channels, *plan.patch_size)
        return [
            make(onnx_program([network], plan.network, plan.patch_size), window=window, precision=precision)
            for network in networks
        ]
