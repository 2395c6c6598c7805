"""Which network the weights of a DynUNet are of, and the same weights in ours.

Everything about the network but its activation, and the groups of a group norm, can be read off the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import ValidationError
from torch import Tensor

from decathlete.core.choices import Norm
from decathlete.core.schema import describe
from decathlete.interop.dynunet_names import NAMED, Kind, Misfit, block_name, find_tensors, their_name
from decathlete.networks.build import build_network
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.network_spec import Axes, Dims

_OPTIONAL = re.compile(r"conv\d\.conv\.bias$|transp_conv\.conv\.bias$")
"""DynUNet's convolutions have no biases, its transposed ones only if asked for: ours are 0 then."""
_MOST_STRIDE = 2
"""Strides above are padded in another way than ours."""


@dataclass(frozen=True, kw_only=True)
class DynUNetWeights:
    """Weights by MONAI's flat names, each once.

    Attributes:
        kind: whose names the checkpoint had.
    """

    kind: Kind
    tensors: Mapping[str, Tensor]

    @classmethod
    def find(cls, state: object) -> Self:
        """In a checkpoint's state dict (which a stranger's may hold anything in place of).

        Raises:
            Misfit: there is no DynUNet in it, or one that contradicts itself.
        """
        kind, tensors = find_tensors(state)
        return cls(kind=kind, tensors=tensors)

    def spec(self, *, norm: Norm | None = None, negative_slope: float = 0.01, norm_groups: int = 32) -> UNetSpec:
        """The network that these are the weights of.

        Args:
            norm: instance or group norm, which have the same weights (instance if ``None``); batch norm is known by its
                statistics, whatever is said here.

        Raises:
            Misfit: names or shapes that no DynUNet has.
        """
        try:
            return _spec(self.tensors, norm=norm, negative_slope=negative_slope, norm_groups=norm_groups)
        except ValidationError as problem:
            raise Misfit(f"is no network that Decathlete has: {'; '.join(describe(problem))}") from None

    def ours(self, spec: UNetSpec) -> dict[str, Tensor]:
        """A state dict of ``build_network(spec)``, float32; biases that DynUNet does not have are 0.

        Raises:
            Misfit: a tensor is missing, has no place, or another shape.
        """
        return _renamed(self.tensors, spec)


def _spec(tensors: Mapping[str, Tensor], *, norm: Norm | None, negative_slope: float, norm_groups: int) -> UNetSpec:
    blocks, ups = _blocks(tensors), _ups(tensors)
    firsts = [_shape(tensors, f"{block}.conv1.conv.weight") for block in blocks]
    ups_finest_first = [_shape(tensors, f"{up}.transp_conv.conv.weight") for up in reversed(ups)]
    if len(ups) != len(blocks) - 1:
        raise Misfit(f"has {len(ups)} upsamples for {len(blocks)} levels; one fewer than levels is expected")
    strides = [shape[2:] for shape in ups_finest_first]
    if any(s > _MOST_STRIDE for stride in strides for s in stride):
        raise Misfit(
            f"has strides {strides}; DynUNet pads strides above {_MOST_STRIDE} in a way that Decathlete has not"
        )
    dims: Dims = 2 if len(firsts[0]) == 4 else 3
    residual = any(".conv3." in name for name in tensors)
    has_statistics = any(name.endswith(".running_mean") for name in tensors)
    return UNetSpec(
        dims=dims,
        in_channels=firsts[0][1],
        out_channels=_shape(tensors, "output_block.conv.conv.weight")[0],
        kernels=tuple(shape[2:] for shape in firsts),
        strides=((1,) * dims, *strides),
        features=tuple(shape[0] for shape in firsts),
        encoder_convs=(1 if residual else 2,) * len(blocks),
        decoder_convs=(2,) * len(ups),
        block="residual" if residual else "plain",
        norm="batch" if has_statistics else "group" if norm == "group" else "instance",
        negative_slope=negative_slope,
        heads=1 + len({name.split(".")[1] for name in tensors if name.startswith("deep_supervision_heads.")}),
        norm_groups=norm_groups,
        decoder_kernels=tuple(_shape(tensors, f"{up}.conv_block.conv1.conv.weight")[2:] for up in reversed(ups)),
        stem=False,
        shortcut="strided",
    )


def _blocks(tensors: Mapping[str, Tensor]) -> list[str]:
    """Encoder blocks, finest first."""
    n_stages = _count(tensors, "downsamples") + 2
    return [block_name(level, n_stages) for level in range(n_stages)]


def _ups(tensors: Mapping[str, Tensor]) -> list[str]:
    """Decoder blocks, coarsest first."""
    return [f"upsamples.{i}" for i in range(_count(tensors, "upsamples"))]


def _count(tensors: Mapping[str, Tensor], part: str) -> int:
    return len({name.split(".")[1] for name in tensors if name.startswith(f"{part}.")})


def _shape(tensors: Mapping[str, Tensor], name: str) -> Axes:
    if name not in tensors:
        raise Misfit(f"is not a whole DynUNet: {name} is missing")
    shape = tuple(tensors[name].shape)
    if len(shape) not in (4, 5):
        raise Misfit(f"{name} has shape {shape}, which is not that of a convolution of 2 or 3 axes")
    return shape


def _renamed(tensors: Mapping[str, Tensor], spec: UNetSpec) -> dict[str, Tensor]:
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in build_network(spec).state_dict().items()}
    names = {ours: their_name(ours, spec.n_stages) for ours in expected}
    problems = list(_misfits(tensors, {names[ours]: shape for ours, shape in expected.items()}))
    if problems:
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise Misfit(f"is not a whole DynUNet: {'; '.join(problems[:NAMED])}{more}")
    return {
        ours: _plain(tensors[names[ours]]) if names[ours] in tensors else torch.zeros(shape)
        for ours, shape in expected.items()
    }


def _misfits(tensors: Mapping[str, Tensor], expected: Mapping[str, Axes]) -> Iterator[str]:
    for name, shape in expected.items():
        if name not in tensors:
            if not _OPTIONAL.search(name):
                yield f"{name} is missing"
        elif tuple(tensors[name].shape) != shape:
            yield f"{name} has shape {tuple(tensors[name].shape)}, not {shape}"
        elif not tensors[name].isfinite().all():
            yield f"{name} holds NaN or infinite numbers"
    yield from (f"{name} has no place" for name in tensors if name not in expected)


def _plain(value: Tensor) -> Tensor:
    return value.detach().float() if value.is_floating_point() else value.detach()
