"""What a network looks like, in numbers: everything needed to build it, nothing about how it is trained."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from decathlete.core.choices import Block, Norm, Shortcut
from decathlete.core.schema import Schema

Dims = Literal[2, 3]
Axes = tuple[int, ...]


class NetworkSpec(Schema):
    """An N-dimensional U-Net, stage by stage, finest first.

    Attributes:
        kernels: convolution kernel of each stage.
        strides: stride of each stage's first convolution; the first stage's is 1 everywhere.
        features: channels of each stage.
        encoder_convs: convolutions (plain) or residual blocks (residual) of each encoder stage.
        decoder_convs: convolutions of each decoder stage, finest first, one fewer than stages.
        heads: outputs used in training, the full resolution's included; 1 means no deep supervision.
        norm_groups: of group norm: as many as divide a stage's channels evenly, at most so many.
        decoder_kernels: convolution kernel of each decoder stage, finest first; empty: those of ``kernels``.
        stem: a residual encoder starts with a plain block that brings the image to the first stage's channels.
        shortcut: of residual blocks that reduce the resolution.
    """

    dims: Dims
    in_channels: int = Field(ge=1)
    out_channels: int = Field(ge=1)
    kernels: tuple[Axes, ...]
    strides: tuple[Axes, ...]
    features: tuple[int, ...]
    encoder_convs: tuple[int, ...]
    decoder_convs: tuple[int, ...]
    block: Block = "plain"
    norm: Norm = "instance"
    negative_slope: float = Field(default=0.01, ge=0, le=1)
    heads: int = Field(default=1, ge=1)
    norm_groups: int = Field(default=16, ge=1)
    decoder_kernels: tuple[Axes, ...] = ()
    stem: bool = True
    shortcut: Shortcut = "pooled"

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
            problems.append("features, convolutions, kernels and strides are 1 or more")
        if self.strides and any(s != 1 for s in self.strides[0]):
            problems.append("the first stage keeps full resolution: its strides are 1")
        if not 1 <= self.heads <= max(n - 1, 1):
            problems.append(f"heads must be between 1 and {max(n - 1, 1)}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def n_stages(self) -> int:
        """Resolutions, the bottleneck included."""
        return len(self.features)

    def decoder_kernel(self, stage: int) -> Axes:
        """Of a decoder stage's convolutions."""
        return (self.decoder_kernels or self.kernels)[stage]

    @property
    def divisor(self) -> Axes:
        """A patch must be a multiple of this along each axis."""
        totals = [1] * self.dims
        for stride in self.strides:
            totals = [t * s for t, s in zip(totals, stride, strict=True)]
        return tuple(totals)
