"""Build a U-Net from its specification and draw its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from decathlete.networks.blocks import ConvBlock, ResidualBlock, conv_layer, norm_layer, pool_layer, up_layer
from decathlete.networks.unet import UNet
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.network_spec import Axes


def build_unet(spec: UNetSpec) -> UNet:
    """Build the U-Net that ``spec`` describes, on torch's default device.

    Weights are drawn from torch's default generator as nnU-Net does (He et al. 2015): convolutions normal with the gain
    of the leaky ReLU, biases 0, norms 1 and 0. The last norm of each residual block starts at 0, so that a deep stage
    starts as its shortcuts.
    """
    device = torch.get_default_device()
    with torch.device("meta"):  # the layers' own initial values would be overwritten below
        network = _assemble(spec)
    if device.type != "meta":
        network.to_empty(device=device)
        draw_weights(network, negative_slope=spec.negative_slope)
    return network


def draw_weights(network: nn.Module, *, negative_slope: float) -> None:
    """Draw the initial value of every parameter and buffer of ``network``, in the order of its modules."""
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            nn.init.kaiming_normal_(module.weight, a=negative_slope)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif next(module.parameters(recurse=False), None) is not None:
            _reset_norm(module)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            nn.init.zeros_(module.last_norm.get_parameter("weight"))


def _reset_norm(norm: nn.Module) -> None:
    if isinstance(norm, nn.modules.batchnorm._NormBase):
        norm.reset_running_stats()
    nn.init.ones_(norm.get_parameter("weight"))
    nn.init.zeros_(norm.get_parameter("bias"))


def _assemble(spec: UNetSpec) -> UNet:
    parts = _Parts(spec=spec)
    features, finer = spec.features, range(spec.n_stages - 1)
    return UNet(
        encoder=[parts.encoder_stage(stage) for stage in range(spec.n_stages)],
        ups=[up_layer(spec.dims, features[i + 1], features[i], stride=spec.strides[i + 1]) for i in finer],
        decoder=[parts.decoder_stage(i) for i in finer],
        heads=[parts.head(i) for i in range(spec.heads)],
    )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Builds the parts of one specification's network."""

    spec: UNetSpec

    def encoder_stage(self, stage: int) -> nn.Module:
        """Return the convolutions or residual blocks of one resolution, the first strided.

        A residual encoder's first stage may start with a plain block (the stem) that maps the image to its features.
        """
        spec, kernel = self.spec, self.spec.kernels[stage]
        features, stride = spec.features[stage], spec.strides[stage]
        before = spec.features[stage - 1] if stage else spec.in_channels
        if spec.block == "plain":
            return self._plain_stage(before, features, kernel, stride=stride, n=spec.encoder_convs[stage])
        blocks: list[nn.Module] = []
        if stage == 0 and spec.stem:
            blocks.append(self._conv_block(before, features, kernel))
            before = features
        blocks.append(self._residual_block(before, features, kernel, stride))
        unstrided = (1,) * spec.dims
        more = range(spec.encoder_convs[stage] - 1)
        return nn.Sequential(*blocks, *(self._residual_block(features, features, kernel, unstrided) for _ in more))

    def decoder_stage(self, stage: int) -> nn.Module:
        """Return the convolutions after the concatenation; they are plain in residual networks, too, as in nnU-Net."""
        spec = self.spec
        features = spec.features[stage]
        return self._plain_stage(2 * features, features, spec.decoder_kernel(stage), n=spec.decoder_convs[stage])

    def head(self, stage: int) -> nn.Module:
        """Return the 1x1 convolution that computes the logits."""
        spec = self.spec
        return conv_layer(spec.dims, spec.features[stage], spec.out_channels, kernel=(1,) * spec.dims)

    def _plain_stage(self, before: int, after: int, kernel: Axes, *, n: int, stride: Axes | None = None) -> nn.Module:
        first = self._conv_block(before, after, kernel, stride=stride)
        return nn.Sequential(first, *(self._conv_block(after, after, kernel) for _ in range(n - 1)))

    def _conv_block(
        self,
        before: int,
        after: int,
        kernel: Axes,
        *,
        stride: Axes | None = None,
        activated: bool = True,
        bias: bool = True,
    ) -> ConvBlock:
        spec = self.spec
        return ConvBlock(
            conv_layer(spec.dims, before, after, kernel=kernel, stride=stride, bias=bias),
            norm_layer(spec.norm, spec.dims, after, most_groups=spec.norm_groups),
            slope=spec.negative_slope if activated else None,
        )

    def _residual_block(self, before: int, after: int, kernel: Axes, stride: Axes) -> ResidualBlock:
        return ResidualBlock(
            self._conv_block(before, after, kernel, stride=stride),
            self._conv_block(after, after, kernel, activated=False),
            self._shortcut(before, after, stride),
            slope=self.spec.negative_slope,
        )

    def _shortcut(self, before: int, after: int, stride: Axes) -> nn.Module:
        pointwise, strided = (1,) * self.spec.dims, any(s != 1 for s in stride)
        if self.spec.shortcut == "strided":
            if not strided and before == after:
                return nn.Sequential()
            return nn.Sequential(self._conv_block(before, after, pointwise, stride=stride, activated=False, bias=False))
        steps: list[nn.Module] = [pool_layer(self.spec.dims, stride)] if strided else []
        if before != after:
            steps.append(self._conv_block(before, after, pointwise, activated=False, bias=False))
        return nn.Sequential(*steps)
