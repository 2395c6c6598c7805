"""MedNeXt (Roy et al., MICCAI 2023, arXiv 2303.09975): ConvNeXt blocks in a U-shaped network, for 2 or 3 axes.

A block is a depthwise convolution, a normalisation of each channel, an expansion of the channels by 1x1 convolution,
GELU, and their compression, all beside a shortcut. Downsampling and upsampling are blocks whose depthwise convolution
is strided or transposed and whose shortcut is a strided 1x1 convolution. Skip connections are added.

Weights are drawn as torch's layers do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from decathlete.networks.convolutions import Conv3d
from decathlete.networks.instance_norm import InstanceNorm
from decathlete.networks.mednext_spec import MedNeXtSpec
from decathlete.planning.network_spec import Axes, Dims

if TYPE_CHECKING:
    from decathlete.networks.onnx_graph import OnnxGraph

_Layer = Callable[..., nn.Module]  # torch types its layers by 2 or 3 axes; here the number of axes is a value
_CONV: dict[Dims, _Layer] = {2: nn.Conv2d, 3: Conv3d}
_TRANSPOSED: dict[Dims, _Layer] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class MedNeXt(nn.Module):
    """The network of a specification."""

    def __init__(self, spec: MedNeXtSpec) -> None:
        super().__init__()
        n, features = spec.n_stages, spec.features
        self.stem = _conv(spec.dims, spec.in_channels, features[0])
        self.encoder = nn.ModuleList(
            _blocks(spec, stage, spec.encoder_blocks[stage], spec.encoder_expansion[stage]) for stage in range(n)
        )
        self.downs = nn.ModuleList(_down(spec, stage) for stage in range(1, n))
        self.ups = nn.ModuleList(_up(spec, stage) for stage in range(n - 1))
        self.decoder = nn.ModuleList(
            _blocks(spec, stage, spec.decoder_blocks[stage], spec.decoder_expansion[stage]) for stage in range(n - 1)
        )
        self.heads = nn.ModuleList(_conv(spec.dims, features[i], spec.out_channels) for i in range(spec.heads))

    def encoder_stages(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return the modules of each stage of the encoder (see :mod:`decathlete.networks.stages`)."""
        return list(zip((self.stem, *self.downs), self.encoder, strict=True))

    def forward(self, x_BC: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the logits.

        Args:
            x_BC: (batch, channels, *spatial), each axis a multiple of the product of its strides.

        Returns:
            In training mode a tuple with the logits of every head, finest first; in evaluation mode the finest logits
            alone, of shape (batch, outputs, *spatial).
        """
        x_BC = self.encoder[0](self.stem(x_BC))
        stages = [x_BC]
        for down, stage in zip(self.downs, self.encoder[1:], strict=True):
            stages.append(stage(down(stages[-1])))
        x_BC = stages.pop()
        decoded: list[Tensor] = []
        for up, stage in zip(reversed(self.ups), reversed(self.decoder), strict=True):
            x_BC = stage(up(x_BC) + stages.pop())
            decoded.append(x_BC)
        decoded.reverse()
        if self.training:
            return tuple(head(stage) for head, stage in zip(self.heads, decoded, strict=False))
        logits_BK: Tensor = self.heads[0](decoded[0])
        return logits_BK

    def write_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Write the forward pass in evaluation mode as ONNX operations; return the name of the logits."""
        stages = [_write_all(graph, self.encoder[0], graph.module(self.stem, x))]
        for down, stage in zip(self.downs, self.encoder[1:], strict=True):
            stages.append(_write_all(graph, stage, _write(graph, down, stages[-1])))
        x = stages.pop()
        for up, stage in zip(reversed(self.ups), reversed(self.decoder), strict=True):
            x = _write_all(graph, stage, graph.node("Add", [_write(graph, up, x), stages.pop()]))
        return graph.module(self.heads[0], x)


class MedNeXtBlock(nn.Module):
    """``compress(gelu(expand(norm(depthwise(x))))) + shortcut(x)``."""

    def __init__(self, depthwise: nn.Module, expand: nn.Module, compress: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.depthwise = depthwise
        self.norm = InstanceNorm(depthwise.get_parameter("weight").shape[0])
        self.expand = expand
        self.activation = nn.GELU()
        self.compress = compress
        self.shortcut = shortcut

    def forward(self, x_BC: Tensor) -> Tensor:
        """Return the result, of the depthwise convolution's spatial size."""
        inner: Tensor = self.activation(self.expand(self.norm(self.depthwise(x_BC))))
        y_BC: Tensor = self.compress(inner) + self.shortcut(x_BC)
        return y_BC


class FloatTransposed(nn.Module):
    """A transposed convolution that a CPU computes in float32.

    In bfloat16 oneDNN's gradients of 3D weights are wrong on CPUs (see :mod:`decathlete.networks.convolutions`).
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    @property
    def weight(self) -> nn.Parameter:
        """Weights of the convolution."""
        return self.conv.get_parameter("weight")

    def get_parameter(self, target: str) -> nn.Parameter:
        """Return a parameter of the convolution."""
        return self.conv.get_parameter(target)

    def forward(self, x_BC: Tensor) -> Tensor:
        """Return the transposed convolution."""
        y_BC: Tensor
        if x_BC.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                y_BC = self.conv(x_BC.to(self.weight.dtype))
        else:
            y_BC = self.conv(x_BC)
        return y_BC


def _conv(dims: Dims, before: int, after: int, *, kernel: Axes = (), stride: Axes = (), groups: int = 1) -> nn.Module:
    kernel = kernel or (1,) * dims
    return _CONV[dims](
        before,
        after,
        kernel_size=kernel,
        stride=stride or (1,) * dims,
        padding=tuple(k // 2 for k in kernel),
        groups=groups,
    )


def _transposed(dims: Dims, before: int, after: int, *, kernel: Axes, stride: Axes, groups: int = 1) -> nn.Module:
    """Return a transposed convolution whose output is exactly ``stride`` times as long."""
    conv = _TRANSPOSED[dims](
        before,
        after,
        kernel_size=kernel,
        stride=stride,
        padding=tuple(k // 2 for k in kernel),
        output_padding=tuple(s - 1 for s in stride),
        groups=groups,
    )
    return FloatTransposed(conv)


def _blocks(spec: MedNeXtSpec, stage: int, n: int, expansion: int) -> nn.Module:
    return nn.Sequential(*(_block(spec, stage, expansion) for _ in range(n)))


def _block(spec: MedNeXtSpec, stage: int, expansion: int) -> MedNeXtBlock:
    width = spec.features[stage]
    return MedNeXtBlock(
        _conv(spec.dims, width, width, kernel=spec.kernels[stage], groups=width),
        _conv(spec.dims, width, expansion * width),
        _conv(spec.dims, expansion * width, width),
        nn.Identity(),
    )


def _down(spec: MedNeXtSpec, stage: int) -> MedNeXtBlock:
    """Return the block that enters a coarser resolution."""
    before, after, stride = spec.features[stage - 1], spec.features[stage], spec.strides[stage]
    inner = spec.encoder_expansion[stage] * before
    return MedNeXtBlock(
        _conv(spec.dims, before, before, kernel=spec.kernels[stage], stride=stride, groups=before),
        _conv(spec.dims, before, inner),
        _conv(spec.dims, inner, after),
        _conv(spec.dims, before, after, stride=stride),
    )


def _up(spec: MedNeXtSpec, stage: int) -> MedNeXtBlock:
    """Return the block that enters a finer resolution."""
    below, after, stride = spec.features[stage + 1], spec.features[stage], spec.strides[stage + 1]
    inner = spec.decoder_expansion[stage] * below
    return MedNeXtBlock(
        _transposed(spec.dims, below, below, kernel=spec.kernels[stage + 1], stride=stride, groups=below),
        _conv(spec.dims, below, inner),
        _conv(spec.dims, inner, after),
        _transposed(spec.dims, below, after, kernel=(1,) * spec.dims, stride=stride),
    )


def _write_all(graph: OnnxGraph, blocks: nn.Module, x: str) -> str:
    for block in blocks.children():
        x = _write(graph, block, x)
    return x


def _write(graph: OnnxGraph, block: nn.Module, x: str) -> str:
    """Write a block as ONNX operations."""
    assert isinstance(block, MedNeXtBlock)
    inner = x
    for part in (block.depthwise, block.norm, block.expand, block.activation, block.compress):
        inner = graph.module(_plain(part), inner)
    return graph.node("Add", [inner, graph.module(_plain(block.shortcut), x)])


def _plain(module: nn.Module) -> nn.Module:
    return module.conv if isinstance(module, FloatTransposed) else module
