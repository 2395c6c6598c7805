"""The part of a specification that all networks of an encoder and a decoder have. It does not need torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar, Self

from pydantic import model_validator

from decathlete.planning.network_spec import Axes, NetworkSpec


class EncoderDecoderSpec(NetworkSpec):
    """A network that lowers the resolution stage by stage and raises it again. Tuples have one entry per stage, finest
    first."""

    title: ClassVar[str]
    """Name of the architecture in messages, with its article."""
    encoder_fields: ClassVar[tuple[str, ...]] = ("kernels", "strides")
    """Fields with one entry per stage."""
    decoder_fields: ClassVar[tuple[str, ...]] = ()
    """Fields with one entry per stage of the decoder."""

    kernels: tuple[Axes, ...]
    """Convolution kernel of each stage."""
    strides: tuple[Axes, ...]
    """Stride from the finer stage to each stage; 1 along every axis in the first stage."""
    features: tuple[int, ...]
    """Channels of each stage."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        n = self.n_stages
        if n < 2:
            yield f"{self.title} needs at least 2 stages"
        for name in self.encoder_fields:
            if len(getattr(self, name)) != n:
                yield f"{name} needs {n} entries, one per stage of features"
        for name in self.decoder_fields:
            if len(getattr(self, name)) != n - 1:
                yield f"{name} needs {n - 1} entries, one fewer than stages"
        yield from self._problems_of_axes("kernels", "strides")
        if any(k % 2 == 0 for kernel in self.kernels for k in kernel):
            yield "kernels must be odd"
        for name in ("features", *self.encoder_fields, *self.decoder_fields):
            if any(number < 1 for number in _numbers(getattr(self, name))):
                yield f"{name} must be 1 or more"
        if self.strides and any(s != 1 for s in self.strides[0]):
            yield "the strides of the first stage must be 1: it keeps full resolution"
        if not 1 <= self.heads <= max(n - 1, 1):
            yield f"heads must be between 1 and {max(n - 1, 1)}"

    def _problems_of_axes(self, *names: str) -> Iterator[str]:
        """Yield the fields whose entries do not have one number per spatial axis."""
        for name in names:
            if any(len(axes) != self.dims for axes in getattr(self, name)):
                yield f"{name} need {self.dims} numbers each"

    @property
    def n_stages(self) -> int:
        """Number of resolutions, including the bottleneck."""
        return len(self.features)

    @property
    def base_features(self) -> int:
        """Channels from which the stages double: those of the first stage, unless it alone is narrower."""
        return max(self.features[0], self.features[1] // 2)

    def with_finest(self, width: int) -> Self:
        """Return the specification with ``width`` channels in the first stage alone."""
        return self.revised(features=(width, *self.features[1:]))

    @property
    def divisor(self) -> Axes:
        """The size of a patch must be a multiple of this along each axis, voxels: the product of the strides."""
        return tuple(math.prod(axis) for axis in zip((1,) * self.dims, *self.strides, strict=True))


def _numbers(entries: tuple[Any, ...]) -> Iterator[int]:
    """Yield the numbers of a field, whose entries are numbers or tuples of them."""
    for entry in entries:
        yield from entry if isinstance(entry, tuple) else (entry,)
