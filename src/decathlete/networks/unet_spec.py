"""The specification of a U-Net. It does not need torch."""

from __future__ import annotations

import math
from typing import ClassVar, Self

from pydantic import Field, model_validator

from decathlete.core.choices import Block, Norm, Shortcut
from decathlete.errors import ModelError
from decathlete.planning.network_spec import Axes, NetworkSpec


class UNetSpec(NetworkSpec):
    """A U-Net with any number of spatial axes. Tuples have one entry per stage, finest first."""

    component: ClassVar[str] = "unet"  # also where the architecture's module has not been imported
    kernels: tuple[Axes, ...]
    """Convolution kernel of each stage."""
    strides: tuple[Axes, ...]
    """Stride of each stage's first convolution; 1 along every axis in the first stage."""
    features: tuple[int, ...]
    """Channels of each stage."""
    encoder_convs: tuple[int, ...]
    """Convolutions (plain) or residual blocks (residual) of each encoder stage."""
    decoder_convs: tuple[int, ...]
    """Convolutions of each decoder stage, finest first, one fewer than stages."""
    block: Block = "plain"
    """Blocks of the encoder."""
    norm: Norm = "instance"
    """Normalisation layers."""
    negative_slope: float = Field(default=0.01, ge=0, le=1)
    """Slope of the leaky ReLU below 0."""
    norm_groups: int = Field(default=16, ge=1)
    """Largest number of groups of group normalisation; the number used divides the channels evenly."""
    decoder_kernels: tuple[Axes, ...] = ()
    """Convolution kernel of each decoder stage, finest first; empty: those of ``kernels``."""
    stem: bool = True
    """Whether a residual encoder starts with a plain block that maps the image to the first stage's channels."""
    shortcut: Shortcut = "pooled"
    """Shortcut of residual blocks that reduce the resolution."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        n = len(self.features)
        problems = []
        if n < 2:
            problems.append("a U-Net needs at least 2 stages")
        for name in ("kernels", "strides", "encoder_convs"):
            if len(getattr(self, name)) != n:
                problems.append(f"{name} needs {n} entries, one per stage of features")
        if len(self.decoder_convs) != n - 1:
            problems.append(f"decoder_convs needs {n - 1} entries, one fewer than stages")
        if len(self.decoder_kernels) not in (0, n - 1):
            problems.append(f"decoder_kernels needs {n - 1} entries, or none")
        if any(len(axes) != self.dims for axes in (*self.kernels, *self.decoder_kernels, *self.strides)):
            problems.append(f"kernels and strides need {self.dims} numbers each")
        if any(k % 2 == 0 for kernel in (*self.kernels, *self.decoder_kernels) for k in kernel):
            problems.append("kernels must be odd")
        per_axis = [n for axes in (*self.kernels, *self.decoder_kernels, *self.strides) for n in axes]
        if any(n < 1 for n in (*self.features, *self.encoder_convs, *self.decoder_convs, *per_axis)):
            problems.append("features, convolutions, kernels and strides must be 1 or more")
        if self.strides and any(s != 1 for s in self.strides[0]):
            problems.append("the strides of the first stage must be 1: it keeps full resolution")
        if not 1 <= self.heads <= max(n - 1, 1):
            problems.append(f"heads must be between 1 and {max(n - 1, 1)}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def n_stages(self) -> int:
        """Number of resolutions, including the bottleneck."""
        return len(self.features)

    def decoder_kernel(self, stage: int) -> Axes:
        """Return the kernel of a decoder stage's convolutions."""
        return (self.decoder_kernels or self.kernels)[stage]

    @property
    def divisor(self) -> Axes:
        """The size of a patch must be a multiple of this along each axis, voxels: the product of the strides."""
        return tuple(math.prod(axis) for axis in zip((1,) * self.dims, *self.strides, strict=True))


def as_unet(spec: NetworkSpec) -> UNetSpec:
    """Return the specification of a U-Net.

    Raises:
        ModelError: it belongs to another architecture.
    """
    if not isinstance(spec, UNetSpec):
        raise ModelError(
            f"its network has the architecture {spec.architecture}, not unet", remedy="use a model with a U-Net"
        )
    return spec
