"""Architectures of an encoder and a decoder: what all of them have."""

from __future__ import annotations

from abc import ABC
from typing import TypeVar

from decathlete.networks.encoder_decoder_spec import EncoderDecoderSpec
from decathlete.planning.architectures import Architecture
from decathlete.planning.network_spec import Axes
from decathlete.planning.topology import Topology

SpecT = TypeVar("SpecT", bound=EncoderDecoderSpec)


class EncoderDecoderArchitecture(Architecture[SpecT], ABC):
    """A network that lowers the resolution stage by stage and raises it again."""

    @property
    def width(self) -> int:
        """Channels at full resolution."""
        return self.spec.features[0]

    def topology(self, patch_size: Axes) -> Topology:
        """Return the specification's strides and kernels."""
        return Topology(patch_size=patch_size, strides=self.spec.strides, kernels=self.spec.kernels)
