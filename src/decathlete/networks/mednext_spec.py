"""The specification of a MedNeXt. It does not need torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from decathlete.networks.encoder_decoder_spec import EncoderDecoderSpec

MedNeXtSize = Literal["S", "B", "M", "L"]


class MedNeXtSpec(EncoderDecoderSpec):
    """A MedNeXt with any number of spatial axes. ``kernels`` are those of the depthwise convolutions."""

    component: ClassVar[str] = "mednext"  # also where the architecture's module has not been imported
    title: ClassVar[str] = "a MedNeXt"
    encoder_fields: ClassVar[tuple[str, ...]] = ("kernels", "strides", "encoder_blocks", "encoder_expansion")
    decoder_fields: ClassVar[tuple[str, ...]] = ("decoder_blocks", "decoder_expansion")

    size: MedNeXtSize = "S"
    """Size that blocks and expansions are planned for."""
    encoder_blocks: tuple[int, ...]
    """Blocks of each stage of the encoder, the bottleneck last."""
    decoder_blocks: tuple[int, ...]
    """Blocks of each stage of the decoder, one fewer than stages."""
    encoder_expansion: tuple[int, ...]
    """Expansion of the channels inside the encoder's blocks."""
    decoder_expansion: tuple[int, ...]
    """Expansion of the channels inside the decoder's blocks."""
