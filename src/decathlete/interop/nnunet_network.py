"""Converts the architecture in nnU-Net's plans to a :class:`UNetSpec`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from decathlete.core.choices import Norm
from decathlete.core.schema import describe
from decathlete.interop.nnunet_files import Architecture, ArchitectureKwargs
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.network_spec import Axes, Dims

_KINDS = ("PlainConvUNet", "ResidualEncoderUNet")


class UnsupportedModelError(ValueError):
    """Decathlete does not support the model; the message lists every reason."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = tuple(reasons)


@dataclass(frozen=True, kw_only=True)
class NnUNetNetwork:
    """A network of nnU-Net.

    Attributes:
        spec: the network.
        conv_bias: whether nnU-Net's convolutions have biases (ours always do).
        dropout: whether nnU-Net's network has dropout layers; they have no effect in prediction.
    """

    spec: UNetSpec
    conv_bias: bool
    dropout: bool


def convert_architecture(
    architecture: Architecture, *, dims: Dims, in_channels: int, out_channels: int, norm: Norm | None = None
) -> NnUNetNetwork:
    """Convert an architecture of nnU-Net's plans to a network.

    Args:
        architecture: from the plans.
        dims: dimensions of the network.
        in_channels, out_channels: number of input and output channels.
        norm: norm of the trained network, which a trainer may change (nnU-Net's trainer for batch norm does);
            ``None``: norm of the plans.

    Raises:
        UnsupportedModelError: Decathlete does not support a part of the network.
    """
    kwargs, kind = architecture.arch_kwargs, architecture.network_class_name.rsplit(".", 1)[-1]
    reasons = [] if kind in _KINDS else [f"the network is a {kind}: only {' and '.join(_KINDS)} are supported"]
    reasons += _find_unsupported_parts(kwargs, dims)
    if reasons:
        raise UnsupportedModelError(reasons)
    n, residual = kwargs.n_stages, kind == "ResidualEncoderUNet"
    depth = kwargs.n_blocks_per_stage if residual else kwargs.n_conv_per_stage
    try:
        spec = UNetSpec(
            dims=dims,
            in_channels=in_channels,
            out_channels=out_channels,
            kernels=_axes_per_stage(kwargs.kernel_sizes, n, dims),
            strides=_axes_per_stage(kwargs.strides, n, dims),
            features=_per_stage(kwargs.features_per_stage, n),
            encoder_convs=_per_stage(depth or 0, n),
            decoder_convs=_per_stage(kwargs.n_conv_per_stage_decoder, n - 1)[::-1],
            block="residual" if residual else "plain",
            norm=norm or ("batch" if _class_name(kwargs.norm_op).startswith("BatchNorm") else "instance"),
            negative_slope=_slope(kwargs),
            heads=max(n - 1, 1),
        )
    except ValidationError as problem:
        raise UnsupportedModelError([f"network: {line}" for line in describe(problem)]) from None
    return NnUNetNetwork(spec=spec, conv_bias=kwargs.conv_bias, dropout=kwargs.dropout_op is not None)


def _find_unsupported_parts(kwargs: ArchitectureKwargs, dims: Dims) -> Iterator[str]:
    norm, settings = _class_name(kwargs.norm_op), kwargs.norm_op_kwargs or {}
    if _class_name(kwargs.conv_op) != f"Conv{dims}d":
        yield f"convolutions are {kwargs.conv_op} in a {dims}D model"
    if norm not in (f"InstanceNorm{dims}d", f"BatchNorm{dims}d"):
        yield f"the norm is {kwargs.norm_op}: only instance and batch norm are supported"
    elif not settings.get("affine", norm.startswith("Batch")) or settings.get("eps", 1e-5) != 1e-5:
        yield f"the norm is not affine with an eps of 1e-5 ({settings})"
    elif settings.get("track_running_stats", norm.startswith("Batch")) != norm.startswith("Batch"):
        yield f"the norm tracks running statistics in an unusual way ({settings})"
    if _class_name(kwargs.nonlin) not in ("LeakyReLU", "ReLU"):
        yield f"the nonlinearity is {kwargs.nonlin}: only (leaky) ReLU is supported"
    if kwargs.nonlin_first:
        yield "the nonlinearity comes before the norm"
    if kwargs.block is not None and _class_name(kwargs.block) != "BasicBlockD":
        yield f"residual blocks are {_class_name(kwargs.block)}: only BasicBlockD is supported"
    features = kwargs.features_per_stage
    first = features if isinstance(features, int) else features[0] if features else None
    if kwargs.stem_channels not in (None, first):
        yield f"the stem has {kwargs.stem_channels} channels, not the {first} of the first stage"


def _class_name(path: str | None) -> str:
    """Return ``LeakyReLU`` for ``torch.nn.LeakyReLU``."""
    return (path or "").rsplit(".", 1)[-1]


def _slope(kwargs: ArchitectureKwargs) -> Any:
    """Return the negative slope in the plans. :class:`NetworkSpec` validates it."""
    return 0.0 if _class_name(kwargs.nonlin) == "ReLU" else (kwargs.nonlin_kwargs or {}).get("negative_slope", 0.01)


def _per_stage(values: list[int] | int, n: int) -> tuple[int, ...]:
    return (values,) * n if isinstance(values, int) else tuple(values)


def _axes_per_stage(values: list[list[int] | int] | int, n: int, dims: Dims) -> tuple[Axes, ...]:
    stages = [values] * n if isinstance(values, int) else values
    return tuple((stage,) * dims if isinstance(stage, int) else tuple(stage) for stage in stages)
