"""ONNX operations of the modules that networks here consist of: a graph, written operation by operation.

Nothing is traced, so a program takes milliseconds. The operations are of opset 17, known to runtimes since 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from decathlete.networks.blocks import ConvBlock, ResidualBlock
from decathlete.networks.instance_norm import EPS, InstanceNorm

OPSET = 17


@runtime_checkable
class WritesOnnx(Protocol):
    """A network that writes its own ONNX graph."""

    def write_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Add the operations of the forward pass in evaluation mode to ``graph``.

        Args:
            x: name of the value that holds the windows.

        Returns:
            Name of the value that holds the logits.
        """
        ...


class OnnxGraph:
    """Collects operations and constants.

    Attributes:
        nodes: ``onnx.NodeProto`` of each operation, in order.
        constants: ``onnx.TensorProto`` of each weight.
    """

    def __init__(self, dims: int) -> None:
        self.dims = dims
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, operation: str, inputs: Sequence[str], *, name: str | None = None, **attributes: Any) -> str:
        """Add an operation, and return the name of its result."""
        from onnx import helper

        result = name or f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [result], **attributes))
        return result

    def constant(self, values: Tensor) -> str:
        """Add a constant, and return its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values.detach().cpu().contiguous().numpy(), name))
        return name

    def module(self, module: nn.Module, x: str) -> str:
        """Add the operations of a module that is applied to the value called ``x``; return the name of its result.

        Raises:
            TypeError: the module is of a kind that is not known here.
        """
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
        if isinstance(module, nn.GELU):
            return self._gelu(x)
        if isinstance(module, (nn.AvgPool2d, nn.AvgPool3d)):
            return self.node("AveragePool", [x], kernel_shape=module.kernel_size, strides=module.stride)
        raise TypeError(f"no ONNX operation is known for {type(module).__name__}")

    def _convolution(self, module: _ConvNd, x: str) -> str:
        transposed = isinstance(module, _ConvTransposeNd)
        longer: dict[str, Any] = {"output_padding": module.output_padding} if any(module.output_padding) else {}
        weights = [self.constant(value) for value in (module.weight, module.bias) if value is not None]
        return self.node(
            "ConvTranspose" if transposed else "Conv",
            [x, *weights],
            kernel_shape=module.kernel_size,
            strides=module.stride,
            pads=[*module.padding, *module.padding],
            group=module.groups,
            **longer,
        )

    def _gelu(self, x: str) -> str:
        """``x (1 + erf(x / sqrt(2))) / 2``: opset 17 has no GELU."""
        scaled = self.node("Mul", [x, self.constant(torch.tensor(0.5**0.5))])
        share = self.node("Add", [self.node("Erf", [scaled]), self.constant(torch.tensor(1.0))])
        return self.node("Mul", [self.node("Mul", [x, share]), self.constant(torch.tensor(0.5))])

    def _group_norm(self, module: nn.GroupNorm, x: str) -> str:
        """Normalise each group as one channel, then scale and shift the channels (opset 17 has no group norm)."""
        groups, axes = module.num_groups, (-1, *(1,) * self.dims)
        flat = self.node("Reshape", [x, self.constant(torch.tensor([0, groups, -1]))])
        plain = [self.constant(torch.ones(groups)), self.constant(torch.zeros(groups))]
        normal = self.node("InstanceNormalization", [flat, *plain], epsilon=module.eps)
        back = self.node("Reshape", [normal, self.node("Shape", [x])])
        scaled = self.node("Mul", [back, self.constant(module.weight.reshape(axes))])
        return self.node("Add", [scaled, self.constant(module.bias.reshape(axes))])
