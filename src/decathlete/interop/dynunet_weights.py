"""Derives the network from the weights of a DynUNet, and converts the weights to our network.

The shapes of the weights determine everything except the activation and the number of groups of a group norm.
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
from decathlete.interop.dynunet_names import (
    MAX_LISTED,
    Kind,
    WeightsMismatchError,
    block_name,
    find_tensors,
    to_monai_name,
)
from decathlete.networks.build import build_network
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.network_spec import Axes, Dims

_OPTIONAL = re.compile(r"conv\d\.conv\.bias$|transp_conv\.conv\.bias$")
"""Biases that a DynUNet may lack: of convolutions always, of transposed convolutions by default. Ours are then 0."""
_MAX_STRIDE = 2
"""Maximum stride. DynUNet pads larger strides differently."""


@dataclass(frozen=True, kw_only=True)
class DynUNetWeights:
    """Weights of a DynUNet.

    Attributes:
        kind: network of the checkpoint.
        tensors: MONAI's flat name -> tensor.
    """

    kind: Kind
    tensors: Mapping[str, Tensor]

    @classmethod
    def from_state_dict(cls, state: object) -> Self:
        """Read the weights from a state dict. ``state`` may be anything, since checkpoints are not trusted.

        Raises:
            WeightsMismatchError: the state dict has no DynUNet, or contradicts itself.
        """
        kind, tensors = find_tensors(state)
        return cls(kind=kind, tensors=tensors)

    def network_spec(
        self, *, norm: Norm | None = None, negative_slope: float = 0.01, norm_groups: int = 32
    ) -> UNetSpec:
        """Derive the network from the weights.

        Args:
            norm: instance or group norm, which have the same weights; ``None``: instance. Weights with running
                statistics have batch norm in any case.
            negative_slope: negative slope of the leaky ReLU.
            norm_groups: number of groups of a group norm.

        Raises:
            WeightsMismatchError: names or shapes do not match a DynUNet.
        """
        try:
            return _derive_spec(self.tensors, norm=norm, negative_slope=negative_slope, norm_groups=norm_groups)
        except ValidationError as problem:
            raise WeightsMismatchError(
                f"has a network that Decathlete does not support: {'; '.join(describe(problem))}"
            ) from None

    def to_state_dict(self, spec: UNetSpec) -> dict[str, Tensor]:
        """Convert the weights to a state dict of ``build_network(spec)``, float32. Biases that DynUNet lacks are 0.

        Raises:
            WeightsMismatchError: a tensor is missing or unknown, or has the wrong shape.
        """
        return _convert(self.tensors, spec)


def _derive_spec(
    tensors: Mapping[str, Tensor], *, norm: Norm | None, negative_slope: float, norm_groups: int
) -> UNetSpec:
    blocks, ups = _blocks(tensors), _ups(tensors)
    firsts = [_shape(tensors, f"{block}.conv1.conv.weight") for block in blocks]
    ups_finest_first = [_shape(tensors, f"{up}.transp_conv.conv.weight") for up in reversed(ups)]
    if len(ups) != len(blocks) - 1:
        raise WeightsMismatchError(
            f"has {len(ups)} upsamples for {len(blocks)} levels; one fewer than levels is expected"
        )
    strides = [shape[2:] for shape in ups_finest_first]
    if any(s > _MAX_STRIDE for stride in strides for s in stride):
        raise WeightsMismatchError(
            f"has strides {strides}; DynUNet pads strides above {_MAX_STRIDE} in a way that Decathlete does not support"
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
    """Return the names of the encoder blocks, finest first."""
    n_stages = _count(tensors, "downsamples") + 2
    return [block_name(level, n_stages) for level in range(n_stages)]


def _ups(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the decoder blocks, coarsest first."""
    return [f"upsamples.{i}" for i in range(_count(tensors, "upsamples"))]


def _count(tensors: Mapping[str, Tensor], part: str) -> int:
    return len({name.split(".")[1] for name in tensors if name.startswith(f"{part}.")})


def _shape(tensors: Mapping[str, Tensor], name: str) -> Axes:
    if name not in tensors:
        raise WeightsMismatchError(f"is not a complete DynUNet: {name} is missing")
    shape = tuple(tensors[name].shape)
    if len(shape) not in (4, 5):
        raise WeightsMismatchError(f"{name} has shape {shape}, which is not the shape of a 2D or 3D convolution")
    return shape


def _convert(tensors: Mapping[str, Tensor], spec: UNetSpec) -> dict[str, Tensor]:
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in build_network(spec).state_dict().items()}
    names = {name: to_monai_name(name, spec.n_stages) for name in expected}
    problems = list(_find_mismatches(tensors, {names[name]: shape for name, shape in expected.items()}))
    if problems:
        more = f"; and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
        raise WeightsMismatchError(f"is not a complete DynUNet: {'; '.join(problems[:MAX_LISTED])}{more}")
    return {
        name: _to_float32(tensors[names[name]]) if names[name] in tensors else torch.zeros(shape)
        for name, shape in expected.items()
    }


def _find_mismatches(tensors: Mapping[str, Tensor], expected: Mapping[str, Axes]) -> Iterator[str]:
    for name, shape in expected.items():
        if name not in tensors:
            if not _OPTIONAL.search(name):
                yield f"{name} is missing"
        elif tuple(tensors[name].shape) != shape:
            yield f"{name} has shape {tuple(tensors[name].shape)}, not {shape}"
        elif not tensors[name].isfinite().all():
            yield f"{name} contains NaN or infinity"
    yield from (f"{name} is unknown" for name in tensors if name not in expected)


def _to_float32(value: Tensor) -> Tensor:
    return value.detach().float() if value.is_floating_point() else value.detach()
