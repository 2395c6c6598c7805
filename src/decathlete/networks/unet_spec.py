"""The specification of a U-Net. It does not need torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from decathlete.core.choices import Block, Norm, Shortcut
from decathlete.errors import ModelError
from decathlete.networks.encoder_decoder_spec import EncoderDecoderSpec
from decathlete.planning.network_spec import Axes, NetworkSpec


class UNetSpec(EncoderDecoderSpec):
    """A U-Net with any number of spatial axes. ``strides`` are those of each stage's first convolution."""

    component: ClassVar[str] = "unet"  # also where the architecture's module has not been imported
    title: ClassVar[str] = "a U-Net"
    encoder_fields: ClassVar[tuple[str, ...]] = ("kernels", "strides", "encoder_convs")
    decoder_fields: ClassVar[tuple[str, ...]] = ("decoder_convs",)

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

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        yield from self._problems_of_axes("decoder_kernels")
        if len(self.decoder_kernels) not in (0, self.n_stages - 1):
            yield f"decoder_kernels needs {self.n_stages - 1} entries, or none"
        if any(k < 1 or k % 2 == 0 for kernel in self.decoder_kernels for k in kernel):
            yield "decoder_kernels must be odd, 1 or more"

    def decoder_kernel(self, stage: int) -> Axes:
        """Return the kernel of a decoder stage's convolutions."""
        return (self.decoder_kernels or self.kernels)[stage]


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
