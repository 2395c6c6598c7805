"""Blocks of the U-Net, for any number of spatial axes. Modules receive their parts from ``unet_build``.

A batch is ``x_BC...``: batch, channel, then 2 or 3 spatial axes.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from decathlete.core.choices import Norm
from decathlete.networks.convolutions import Conv3d, ConvTranspose3d
from decathlete.networks.instance_norm import EPS, InstanceNorm
from decathlete.planning.network_spec import Axes, Dims

MAX_GROUPS = 16

_Layer = Callable[..., nn.Module]  # torch types its layers by 2 or 3 axes; here the number of axes is a value

_CONV: dict[Dims, _Layer] = {2: nn.Conv2d, 3: Conv3d}
_UP: dict[Dims, _Layer] = {2: nn.ConvTranspose2d, 3: ConvTranspose3d}
_POOL: dict[Dims, _Layer] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_BATCH_NORM: dict[Dims, _Layer] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def norm_layer(kind: Norm, dims: Dims, channels: int, *, most_groups: int = MAX_GROUPS) -> nn.Module:
    """Return an affine normalisation layer (eps 1e-5).

    Args:
        most_groups: largest number of groups of group norm; the largest number that divides ``channels`` is used.
    """
    if kind == "instance":
        return InstanceNorm(channels)
    if kind == "batch":
        return _BATCH_NORM[dims](channels, eps=EPS)
    groups = max(g for g in range(1, most_groups + 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=EPS)


def conv_layer(
    dims: Dims, channels_in: int, channels_out: int, *, kernel: Axes, stride: Axes | None = None, bias: bool = True
) -> nn.Module:
    """Return a convolution padded by ``kernel // 2``: with stride 1 the output has the input's shape."""
    return _CONV[dims](
        channels_in,
        channels_out,
        kernel_size=kernel,
        stride=stride or (1,) * dims,
        padding=tuple(k // 2 for k in kernel),
        bias=bias,
    )


def up_layer(dims: Dims, channels_in: int, channels_out: int, *, stride: Axes) -> nn.Module:
    """Return a transposed convolution whose kernel is its stride: each voxel becomes a block of ``stride`` voxels."""
    return _UP[dims](channels_in, channels_out, kernel_size=stride, stride=stride)


def pool_layer(dims: Dims, stride: Axes) -> nn.Module:
    """Return average pooling over blocks of ``stride`` voxels."""
    return _POOL[dims](kernel_size=stride, stride=stride)


class ConvBlock(nn.Module):
    """Convolution, normalisation and leaky ReLU; no activation if ``slope`` is ``None``."""

    def __init__(self, conv: nn.Module, norm: nn.Module, *, slope: float | None) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        # In place: neither the convolution nor the normalisation needs the normalised values for its gradient.
        self.activation = nn.Identity() if slope is None else nn.LeakyReLU(slope, inplace=True)

    def forward(self, x_BC: Tensor) -> Tensor:
        """Return the result, of the convolution's output shape."""
        y: Tensor = self.activation(self.norm(self.conv(x_BC)))
        return y


class ResidualBlock(nn.Module):
    """``activation(second(first(x)) + shortcut(x))``: a basic residual block (He et al. 2016).

    Args:
        first: convolution (strided where the stage is), norm, activation.
        second: convolution, norm.
        shortcut: maps ``x`` to the shape of ``second``'s output. In nnU-Net's ResEnc: average pooling if strided, then
            a 1x1 convolution and norm if the channels change. In MONAI's DynUNet: a strided 1x1 convolution and norm if
            either changes. Otherwise the identity.
    """

    def __init__(self, first: ConvBlock, second: ConvBlock, shortcut: nn.Module, *, slope: float) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.shortcut = shortcut
        self.activation = nn.LeakyReLU(slope, inplace=True)

    @property
    def last_norm(self) -> nn.Module:
        """The normalisation layer before the sum."""
        return self.second.norm

    def forward(self, x_BC: Tensor) -> Tensor:
        """Return the result, of the second convolution's output shape."""
        y: Tensor = self.activation(self.second(self.first(x_BC)) + self.shortcut(x_BC))
        return y
