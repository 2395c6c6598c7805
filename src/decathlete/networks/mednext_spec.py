"""The specification of a MedNeXt. It does not need torch."""

from __future__ import annotations

import math
from typing import ClassVar, Self

from pydantic import Field, model_validator

from decathlete.planning.network_presets import MedNeXtSize
from decathlete.planning.network_spec import Axes, NetworkSpec


class MedNeXtSpec(NetworkSpec):
    """A MedNeXt with any number of spatial axes. Tuples have one entry per resolution, finest first."""

    component: ClassVar[str] = "mednext"  # also where the architecture's module has not been imported
    size: MedNeXtSize = "S"
    """Size that blocks and expansions are planned for."""
    features: tuple[int, ...]
    """Channels of each resolution."""
    kernels: tuple[Axes, ...]
    """Kernel of the depthwise convolutions of each resolution."""
    strides: tuple[Axes, ...]
    """Stride to each resolution from the finer one; 1 along every axis at full resolution."""
    encoder_blocks: tuple[int, ...]
    """Blocks of each resolution of the encoder, the bottleneck last."""
    decoder_blocks: tuple[int, ...]
    """Blocks of each resolution of the decoder, one fewer than resolutions."""
    encoder_expansion: tuple[int, ...]
    """Expansion of the channels inside the encoder's blocks."""
    decoder_expansion: tuple[int, ...]
    """The same of the decoder's blocks."""
    heads: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        n = len(self.features)
        problems = []
        if n < 2:
            problems.append("a MedNeXt needs at least 2 resolutions")
        for name in ("kernels", "strides", "encoder_blocks", "encoder_expansion"):
            if len(getattr(self, name)) != n:
                problems.append(f"{name} needs {n} entries, one per resolution")
        for name in ("decoder_blocks", "decoder_expansion"):
            if len(getattr(self, name)) != n - 1:
                problems.append(f"{name} needs {n - 1} entries, one fewer than resolutions")
        if any(len(axes) != self.dims for axes in (*self.kernels, *self.strides)):
            problems.append(f"kernels and strides need {self.dims} numbers each")
        if any(k < 1 or k % 2 == 0 for kernel in self.kernels for k in kernel):
            problems.append("kernels must be odd")
        numbers = (*self.features, *self.encoder_blocks, *self.decoder_blocks)
        numbers += (*self.encoder_expansion, *self.decoder_expansion, *(s for axes in self.strides for s in axes))
        if any(number < 1 for number in numbers):
            problems.append("features, blocks, expansions and strides must be 1 or more")
        if self.strides and any(s != 1 for s in self.strides[0]):
            problems.append("the strides of the first resolution must be 1")
        if not 1 <= self.heads <= max(n - 1, 1):
            problems.append(f"heads must be between 1 and {max(n - 1, 1)}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def n_stages(self) -> int:
        """Number of resolutions, including the bottleneck."""
        return len(self.features)

    @property
    def divisor(self) -> Axes:
        """The size of a patch must be a multiple of this along each axis, voxels: the product of the strides."""
        return tuple(math.prod(axis) for axis in zip((1,) * self.dims, *self.strides, strict=True))
