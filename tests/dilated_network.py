"""An architecture that is not a U-Net, as a user would write it: dilated convolutions at full resolution."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import Field

from decathlete.planning.architectures import ARCHITECTURES, Convolution, ConvolutionChain
from decathlete.planning.network_spec import NetworkSpec

if TYPE_CHECKING:
    from torch import nn


class DilatedSpec(NetworkSpec):
    """Two convolutions with kernels of 3, the second dilated."""

    channels: int = Field(default=8, ge=1, description="Channels of both layers.")
    dilation: int = Field(default=2, ge=1, description="Dilation of the second layer, voxels.")


@ARCHITECTURES.register("dilated")
class Dilated(ConvolutionChain[DilatedSpec]):
    """Dilated convolutions at full resolution, without pooling."""

    Settings = DilatedSpec

    def convolutions(self) -> list[Convolution]:
        spec = self.spec
        widths = (spec.in_channels, spec.channels, spec.channels, spec.out_channels)
        channels = zip(pairwise(widths), (3, 3, 1), strict=True)
        return [Convolution(in_channels=i, out_channels=o, kernel=k) for (i, o), k in channels]

    def build(self) -> nn.Module:
        from torch import nn

        class Network(nn.Sequential):
            def forward(self, x):
                logits = super().forward(x)
                return (logits,) if self.training else logits

        spec, conv = self.spec, {2: nn.Conv2d, 3: nn.Conv3d}[self.spec.dims]
        return Network(
            *(conv(spec.in_channels, spec.channels, 3, padding=1), nn.ReLU()),
            *(conv(spec.channels, spec.channels, 3, padding=spec.dilation, dilation=spec.dilation), nn.ReLU()),
            conv(spec.channels, spec.out_channels, 1),
        )
