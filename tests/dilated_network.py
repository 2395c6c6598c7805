"""An architecture that is not a U-Net, as a user would write it: dilated convolutions at full resolution."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pydantic import Field

from decathlete.planning.architectures import ARCHITECTURES, Architecture
from decathlete.planning.network_spec import Axes, NetworkSpec
from decathlete.planning.options import PlanOptions
from decathlete.planning.topology import Topology

if TYPE_CHECKING:
    from torch import nn


class DilatedSpec(NetworkSpec):
    """Two convolutions with kernels of 3, the second dilated."""

    channels: int = Field(default=8, ge=1, description="Channels of both layers.")
    dilation: int = Field(default=2, ge=1, description="Dilation of the second layer, voxels.")


@ARCHITECTURES.register("dilated")
class Dilated(Architecture[DilatedSpec]):
    """Dilated convolutions at full resolution, without pooling."""

    Settings = DilatedSpec

    @classmethod
    def plan_spec(cls, topology: Topology, *, in_channels: int, out_channels: int, options: PlanOptions) -> DilatedSpec:
        return DilatedSpec(dims=len(topology.patch_size), in_channels=in_channels, out_channels=out_channels)

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

    def multiply_adds(self, patch_size: Axes) -> int:
        spec = self.spec
        weights = 3**spec.dims * (spec.in_channels + spec.channels) * spec.channels + spec.channels * spec.out_channels
        return prod(patch_size) * weights

    def feature_map_elements(self, patch_size: Axes) -> int:
        return prod(patch_size) * (2 * self.spec.channels + self.spec.out_channels)

    @property
    def width(self) -> int:
        return self.spec.channels
