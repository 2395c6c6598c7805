"""Converts weights between nnU-Net v2's networks and our network, with one table of tensor names for both directions.

nnU-Net's ``PlainConvUNet`` and ``ResidualEncoderUNet`` compute the same as our
:class:`~decathlete.networks.unet.UNet`. They number the decoder from the coarsest stage, and list most tensors several
times: each convolution and norm also as a member of ``all_modules``, the encoder also as ``decoder.encoder``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from decathlete.interop.safe_checkpoint import is_larger_than_storage
from decathlete.networks.build import build_network
from decathlete.networks.unet_spec import UNetSpec

_ENCODERS = ("encoder", "decoder.encoder")
_RESIDUAL = {"first": "conv1", "second": "conv2", "shortcut": "skip"}


def make_name_table(spec: UNetSpec, *, dropout: bool = False) -> dict[str, tuple[str, ...]]:
    """Return our name of each tensor -> nnU-Net's names of the same tensor, the shortest first.

    Args:
        spec: the network.
        dropout: nnU-Net's plan has dropout layers. They have no weights, but shift the numbers in ``all_modules``.
    """
    return {name: tuple(_translate(name, spec, dropout=dropout)) for name in _expected_shapes(spec)}


def convert_from_nnunet(
    nnunet_state: Mapping[str, Tensor], spec: UNetSpec, *, conv_bias: bool = True, dropout: bool = False
) -> dict[str, Tensor]:
    """Convert nnU-Net's weights to a state dict of ``build_network(spec)``, float32.

    Args:
        nnunet_state: ``network_weights`` of a checkpoint. Names and shapes are checked before anything is copied.
        spec: the network.
        conv_bias: whether nnU-Net's convolutions have biases; if not, the biases of our network are 0.
        dropout: as in :func:`make_name_table`.

    Raises:
        ValueError: names or shapes do not match, or one tensor has different values under two names.
    """
    table, shapes = make_name_table(spec, dropout=dropout), _expected_shapes(spec)
    absent = set() if conv_bias else {name for name in table if _is_optional_bias(name)}
    required = {name: aliases for name, aliases in table.items() if name not in absent}
    _check_names(nnunet_state, required)
    for name, aliases in required.items():
        for alias in aliases:
            if tuple(nnunet_state[alias].shape) != shapes[name]:
                raise ValueError(f"{alias} has shape {tuple(nnunet_state[alias].shape)}, not {shapes[name]}")
    if is_larger_than_storage(nnunet_state[aliases[0]] for aliases in required.values()):
        raise ValueError("its tensors have more numbers than the checkpoint stores")
    for alias, first in ((alias, aliases[0]) for aliases in required.values() for alias in aliases[1:]):
        if not _is_equal(nnunet_state[alias], nnunet_state[first]):
            raise ValueError(f"{alias} and {first} are different, but must be equal")
    state = {name: _to_float32(nnunet_state[aliases[0]]) for name, aliases in required.items()}
    state |= {name: torch.zeros(shapes[name]) for name in absent}
    return {name: state[name] for name in shapes}


def convert_to_nnunet(state: Mapping[str, Tensor], spec: UNetSpec) -> dict[str, Tensor]:
    """Convert a state dict of ``build_network(spec)`` to nnU-Net's (``conv_bias`` true, no dropout).

    Names of the same tensor share its storage. nnU-Net has an output for each decoder stage; outputs that our network
    lacks (``spec.heads``) are 0. Prediction does not use them.
    """
    full = spec.revised(heads=spec.n_stages - 1)
    shapes = _expected_shapes(full)
    nnunet_state: dict[str, Tensor] = {}
    for name, aliases in make_name_table(full).items():
        tensor = state[name].detach() if name in state else torch.zeros(shapes[name])
        nnunet_state |= dict.fromkeys(aliases, tensor)
    return nnunet_state


def _expected_shapes(spec: UNetSpec) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build_network(spec).state_dict().items()}


def _translate(name: str, spec: UNetSpec, *, dropout: bool) -> list[str]:
    """Return nnU-Net's names of a tensor of our network."""
    part, index, *rest = name.split(".")
    from_coarsest = spec.n_stages - 2 - int(index)
    if part == "ups":
        return [f"decoder.transpconvs.{from_coarsest}.{rest[-1]}"]
    if part == "heads":
        return [f"decoder.seg_layers.{from_coarsest}.{rest[-1]}"]
    *path, layer, tensor = rest
    if part == "decoder":
        return _block(f"decoder.stages.{from_coarsest}.convs.{path[0]}", layer, tensor, dropout=dropout)
    inner, drops = _encoder_block(int(index), path, spec)
    return [
        alias for root in _ENCODERS for alias in _block(f"{root}.{inner}", layer, tensor, dropout=dropout and drops)
    ]


def _encoder_block(stage: int, path: list[str], spec: UNetSpec) -> tuple[str, bool]:
    """Return nnU-Net's path of a block within its encoder, and whether the block has dropout layers."""
    block, *inside = path
    if spec.block == "plain":
        return f"stages.{stage}.0.convs.{block}", True
    if not inside:
        return "stem.convs.0", True
    number = int(block) - (stage == 0)  # the first stage of our network begins with the stem
    names = ".".join(_RESIDUAL.get(name, name) for name in inside)
    return f"stages.{stage}.blocks.{number}.{names}", inside[0] == "first"


def _block(path: str, layer: str, tensor: str, *, dropout: bool) -> list[str]:
    place = 0 if layer == "conv" else 1 + dropout
    return [f"{path}.{layer}.{tensor}", f"{path}.all_modules.{place}.{tensor}"]


def _is_optional_bias(name: str) -> bool:
    """Return whether ``conv_bias`` decides about a bias. It does, except for the outputs."""
    return name.endswith(".conv.bias") or (name.startswith("ups.") and name.endswith(".bias"))


def _check_names(nnunet_state: Mapping[str, Tensor], required: Mapping[str, tuple[str, ...]]) -> None:
    known = {alias for aliases in required.values() for alias in aliases}
    for problem, names in (("is missing", known - nnunet_state.keys()), ("is unknown", nnunet_state.keys() - known)):
        if names:
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{min(names)} {problem}{more}")


def _is_equal(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() or torch.equal(a, b)


def _to_float32(tensor: Tensor) -> Tensor:
    """Convert floating-point tensors to float32; leave counters unchanged."""
    return tensor.float().contiguous() if tensor.is_floating_point() else tensor
