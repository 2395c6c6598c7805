"""U-Nets as one ONNX program, written operation by operation: nothing is traced, and it takes milliseconds.

ONNX is what other runtimes read, OpenVINO among them. The operations are of opset 17, known since 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from decathlete.core.extras import how_to_install
from decathlete.core.sizes import format_bytes
from decathlete.errors import ModelError, OptionError
from decathlete.networks.blocks import ConvBlock, ResidualBlock
from decathlete.networks.instance_norm import EPS, InstanceNorm
from decathlete.networks.unet import UNet
from decathlete.planning.network_spec import Axes, Dims, NetworkSpec

OPSET, IR_VERSION = 17, 8
LARGEST_BYTES = 2**31 - 2**24
"""Of weights: the format ends at 2 GiB, and operations and texts need some of them."""
INPUT, OUTPUT = "windows", "logits"
"""Names of the program's input and output."""


def onnx_program(
    networks: Sequence[nn.Module], spec: NetworkSpec, patch: Axes, *, metadata: dict[str, str] | None = None
) -> bytes:
    """A program from ``windows`` (any number, channels, *patch) to ``logits`` (as many, outputs, *patch), float32.

    Args:
        networks: in evaluation mode, all built by ``spec``; the logits are their mean.
        patch: a window's size, fixed in the program.
        metadata: texts to keep in it.

    Raises:
        OptionError: the package ``onnx`` is missing.
        ModelError: the weights are more than an ONNX program can hold.
    """
    try:
        from onnx import TensorProto, helper
    except ImportError:
        raise OptionError("ONNX programs need the package onnx", remedy=how_to_install("onnx")) from None
    _refuse_too_large(networks)
    graph = _Graph(spec.dims)
    logits = [graph.unet(network, INPUT) for network in networks if isinstance(network, UNet)]
    if len(logits) < len(networks):
        raise ModelError(
            f"the architecture {spec.architecture} cannot be written as an ONNX program", remedy="predict with torch"
        )
    graph.node("Mean", logits, name=OUTPUT)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, *patch])
        for name, channels in ((INPUT, spec.in_channels), (OUTPUT, spec.out_channels))
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "decathlete", ends[:1], ends[1:], initializer=graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="decathlete",
    )
    helper.set_model_props(model, metadata or {})
    program: bytes = model.SerializeToString()
    return program


def _refuse_too_large(networks: Sequence[nn.Module]) -> None:
    n_bytes = sum(t.numel() * t.element_size() for network in networks for t in network.state_dict().values())
    if n_bytes > LARGEST_BYTES:
        raise ModelError(
            f"its {len(networks)} network(s) have {format_bytes(n_bytes)} of weights together, and one ONNX program "
            f"holds {format_bytes(LARGEST_BYTES)}",
            remedy="take fewer of its folds, or predict with torch",
        )


class _Graph:
    """Collects operations; each method adds a module's and returns the name of its result."""

    def __init__(self, dims: Dims) -> None:
        self.dims = dims
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, operation: str, inputs: Sequence[str], *, name: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        result = name or f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [result], **attributes))
        return result

    def constant(self, values: Tensor) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values.detach().cpu().contiguous().numpy(), name))
        return name

    def unet(self, network: UNet, x: str) -> str:
        """The finest logits: :meth:`UNet.forward` in evaluation mode."""
        stages = []
        for stage in network.encoder:
            x = self.module(stage, x)
            stages.append(x)
        x = stages.pop()
        for up, stage in zip(reversed(network.ups), reversed(network.decoder), strict=True):
            x = self.module(stage, self.node("Concat", [self.module(up, x), stages.pop()], axis=1))
        return self.module(network.heads[0], x)

    def module(self, module: nn.Module, x: str) -> str:
        if isinstance(module, nn.Sequential):
            for part in module:
                x = self.module(part, x)
            return x
        if isinstance(module, nn.Identity):
            return x
        if isinstance(module, ConvBlock):
            return self.module(module.activation, self.module(module.norm, self.module(module.conv, x)))
        if isinstance(module, ResidualBlock):
            inner = self.module(module.second, self.module(module.first, x))
            return self.module(module.activation, self.node("Add", [inner, self.module(module.shortcut, x)]))
        return self._layer(module, x)

    def _layer(self, module: nn.Module, x: str) -> str:
        if isinstance(module, _ConvNd):
            return self._convolution(module, x)
        if isinstance(module, InstanceNorm):
            affine = [self.constant(module.weight), self.constant(module.bias)]
            return self.node("InstanceNormalization", [x, *affine], epsilon=EPS)
        if isinstance(module, nn.GroupNorm):
            return self._group_norm(module, x)
        if isinstance(module, _BatchNorm):
            names = ("weight", "bias", "running_mean", "running_var")
            values = [self.constant(getattr(module, name)) for name in names]
            return self.node("BatchNormalization", [x, *values], epsilon=module.eps)
        if isinstance(module, nn.LeakyReLU):
            return self.node("LeakyRelu", [x], alpha=module.negative_slope)
        if isinstance(module, (nn.AvgPool2d, nn.AvgPool3d)):
            return self.node("AveragePool", [x], kernel_shape=module.kernel_size, strides=module.stride)
        raise TypeError(f"no ONNX operation is known for {type(module).__name__}")

    def _convolution(self, module: _ConvNd, x: str) -> str:
        transposed = isinstance(module, _ConvTransposeNd)
        weights = [self.constant(value) for value in (module.weight, module.bias) if value is not None]
        return self.node(
            "ConvTranspose" if transposed else "Conv",
            [x, *weights],
            kernel_shape=module.kernel_size,
            strides=module.stride,
            pads=[*module.padding, *module.padding],
        )

    def _group_norm(self, module: nn.GroupNorm, x: str) -> str:
        """Each group as one channel; the scale and shift of the channels come after (opset 17 has no group norm)."""
        groups, axes = module.num_groups, (-1, *(1,) * self.dims)
        flat = self.node("Reshape", [x, self.constant(torch.tensor([0, groups, -1]))])
        plain = [self.constant(torch.ones(groups)), self.constant(torch.zeros(groups))]
        normal = self.node("InstanceNormalization", [flat, *plain], epsilon=module.eps)
        back = self.node("Reshape", [normal, self.node("Shape", [x])])
        scaled = self.node("Mul", [back, self.constant(module.weight.reshape(axes))])
        return self.node("Add", [scaled, self.constant(module.bias.reshape(axes))])
