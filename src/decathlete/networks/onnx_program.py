"""Networks as one ONNX program, which other runtimes read, OpenVINO among them.

A network that can write its own graph (it has a method ``write_onnx``, as the U-Net has) does so in milliseconds.
Any other network is exported by ``torch.onnx.export``, which takes seconds: see ``docs/explanation/performance.md``.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from decathlete.core.extras import import_optional
from decathlete.core.sizes import format_bytes
from decathlete.errors import ModelError
from decathlete.networks.onnx_graph import OPSET, OnnxGraph, WritesOnnx

EXPORT_OPSET = 18
"""The least that ``torch.onnx.export`` writes."""
IR_VERSION = 8
LARGEST_BYTES = 2**31 - 2**24
"""Of weights: the format ends at 2 GiB, and operations and texts need a part of it."""
USE_NETWORK = "compute the network with PyTorch"
"""What to do where a network has no ONNX program."""
INPUT, OUTPUT = "windows", "logits"
"""Names of the program's input and output."""


def onnx_program(
    networks: Sequence[nn.Module],
    *,
    window: tuple[int, ...],
    n_outputs: int,
    metadata: dict[str, str] | None = None,
    alternative: str = USE_NETWORK,
) -> bytes:
    """Return a program from ``windows`` (n, channels, *patch) to ``logits`` (n, outputs, *patch), float32, for any n.

    Args:
        networks: in evaluation mode, on the CPU; the logits are the mean of theirs.
        window: shape of an input after the batch axis: channels, then the patch.
        n_outputs: channels of the logits.
        metadata: texts to store in the program.
        alternative: what to do if there is no such program, in the imperative.

    Raises:
        MissingPackageError: a package that writes programs is missing.
        ModelError: an ONNX program cannot hold that many weights, or not the operations of the network.
    """
    onnx = require_onnx(alternative)
    _check_size(networks, alternative)
    if all(isinstance(network, WritesOnnx) for network in networks):
        model = _written(networks, window, n_outputs, onnx)
    else:
        model = _exported(networks, window, alternative)
    onnx.helper.set_model_props(model, metadata or {})
    program: bytes = model.SerializeToString()
    return program


def require_onnx(alternative: str | None = None) -> Any:
    """Return the package ``onnx``.

    Args:
        alternative: what to do without it, in the imperative.

    Raises:
        MissingPackageError: it is missing, or does not load.
    """
    return import_optional("onnx", title="ONNX", extra="onnx", alternative=alternative)


def _written(networks: Sequence[nn.Module], window: tuple[int, ...], n_outputs: int, onnx: Any) -> Any:
    """Return an ``onnx.ModelProto`` of networks that write their own graphs."""
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    graph = OnnxGraph(len(window) - 1)
    logits = [network.write_onnx(graph, INPUT) for network in networks if isinstance(network, WritesOnnx)]
    graph.node("Mean", logits, name=OUTPUT)
    ends = [
        helper.make_tensor_value_info(name, number, ["n", channels, *window[1:]])
        for name, channels in ((INPUT, window[0]), (OUTPUT, n_outputs))
    ]
    return helper.make_model(
        helper.make_graph(graph.nodes, "decathlete", ends[:1], ends[1:], initializer=graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="decathlete",
    )


def _exported(networks: Sequence[nn.Module], window: tuple[int, ...], alternative: str) -> Any:
    """Return an ``onnx.ModelProto`` of any networks."""
    import_optional("onnxscript", title="ONNX Script", extra="onnx", alternative=alternative)
    windows = torch.zeros(2, *window)
    try:
        with _silent_export():
            program = torch.onnx.export(
                _Mean(networks).eval(),
                (windows,),
                dynamo=True,
                opset_version=EXPORT_OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("n")},),
                verbose=False,
            )
    except Exception as problem:  # torch names many reasons, by many types
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]
        raise ModelError(f"torch.onnx.export cannot export this network ({reason})", remedy=alternative) from problem
    assert program is not None  # for the type checker: ``dynamo`` always returns a program
    return program.model_proto


class _Mean(nn.Module):
    """The mean of the logits of several networks."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, windows: Tensor) -> Tensor:
        """Return the mean logits."""
        logits: list[Tensor] = [network(windows) for network in self.networks]
        return torch.stack(logits).mean(0) if len(logits) > 1 else logits[0]


@contextmanager
def _silent_export() -> Iterator[None]:
    """Hide what torch reports about itself while it exports: deprecated calls, optional packages that are missing."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _check_size(networks: Sequence[nn.Module], alternative: str) -> None:
    n_bytes = sum(t.numel() * t.element_size() for network in networks for t in network.state_dict().values())
    if n_bytes > LARGEST_BYTES:
        raise ModelError(
            f"its {len(networks)} network(s) have {format_bytes(n_bytes)} of weights together, and one ONNX program "
            f"can contain {format_bytes(LARGEST_BYTES)}",
            remedy=f"use a model with fewer networks, or {alternative}",
        )
