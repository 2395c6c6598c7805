"""The names that nnU-Net v2 gives the tensors of a network, and ours: one table for both ways.

nnU-Net's ``PlainConvUNet`` and ``ResidualEncoderUNet`` compute what our :class:`~decathlete.networks.unet.UNet` does,
but number the decoder from the coarsest stage, and list most tensors several times: each convolution and norm also as
a member of ``all_modules``, the encoder also as ``decoder.encoder``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from decathlete.interop.safe_checkpoint import is_hollow
from decathlete.networks.build import build_network
from decathlete.networks.unet_spec import UNetSpec

_ENCODERS = ("encoder", "decoder.encoder")
_RESIDUAL = {"first": "conv1", "second": "conv2", "shortcut": "skip"}


def nnunet_names(spec: UNetSpec, *, dropout: bool = False) -> dict[str, tuple[str, ...]]:
    """Our name of each tensor -> nnU-Net's names of it, the plainest first.

    Args:
        dropout: nnU-Net's plan has dropout layers. They hold no weights, but shift the numbers in ``all_modules``.
    """
    return {ours: tuple(_theirs(ours, spec, dropout=dropout)) for ours in _expected(spec)}


def from_nnunet(
    theirs: Mapping[str, Tensor], spec: UNetSpec, *, conv_bias: bool = True, dropout: bool = False
) -> dict[str, Tensor]:
    """A state dict of ``build_network(spec)`` with nnU-Net's weights, float32.

    Args:
        theirs: ``network_weights`` of a checkpoint. Nothing is copied before all names and shapes are found to fit.
        conv_bias: whether nnU-Net's convolutions have biases; where not, ours are 0.
        dropout: as in :func:`nnunet_names`.

    Raises:
        ValueError: names or shapes that do not fit, or one tensor under two names with different values; what is
            wrong in words.
    """
    names, expected = nnunet_names(spec, dropout=dropout), _expected(spec)
    absent = set() if conv_bias else {ours for ours in names if _is_optional_bias(ours)}
    wanted = {ours: given for ours, given in names.items() if ours not in absent}
    _check_names(theirs, wanted)
    for ours, given in wanted.items():
        for name in given:
            if tuple(theirs[name].shape) != expected[ours]:
                raise ValueError(f"{name} has shape {tuple(theirs[name].shape)}, not {expected[ours]}")
    if is_hollow(theirs[given[0]] for given in wanted.values()):
        raise ValueError("its tensors have more numbers than the checkpoint stores")
    for name, first in ((name, given[0]) for given in wanted.values() for name in given[1:]):
        if not _same(theirs[name], theirs[first]):
            raise ValueError(f"{name} and {first} ought to be the same and differ")
    found = {ours: _plain(theirs[given[0]]) for ours, given in wanted.items()}
    found |= {ours: torch.zeros(expected[ours]) for ours in absent}
    return {ours: found[ours] for ours in expected}


def to_nnunet(ours: Mapping[str, Tensor], spec: UNetSpec) -> dict[str, Tensor]:
    """nnU-Net's state dict (``conv_bias`` true, no dropout) of a network of ``spec``; shared tensors stay shared.

    nnU-Net always has an output per decoder stage: those that ``spec.heads`` leaves out are 0. Prediction does not use
    them.
    """
    full = spec.revised(heads=spec.n_stages - 1)
    shapes = _expected(full)
    theirs: dict[str, Tensor] = {}
    for name, given in nnunet_names(full).items():
        tensor = ours[name].detach() if name in ours else torch.zeros(shapes[name])
        theirs |= dict.fromkeys(given, tensor)
    return theirs


def _expected(spec: UNetSpec) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build_network(spec).state_dict().items()}


def _theirs(ours: str, spec: UNetSpec, *, dropout: bool) -> list[str]:
    part, index, *rest = ours.split(".")
    from_coarsest = spec.n_stages - 2 - int(index)
    if part == "ups":
        return [f"decoder.transpconvs.{from_coarsest}.{rest[-1]}"]
    if part == "heads":
        return [f"decoder.seg_layers.{from_coarsest}.{rest[-1]}"]
    *path, layer, tensor = rest
    if part == "decoder":
        return _block(f"decoder.stages.{from_coarsest}.convs.{path[0]}", layer, tensor, dropout=dropout)
    inner, drops = _encoder_block(int(index), path, spec)
    return [name for root in _ENCODERS for name in _block(f"{root}.{inner}", layer, tensor, dropout=dropout and drops)]


def _encoder_block(stage: int, path: list[str], spec: UNetSpec) -> tuple[str, bool]:
    """nnU-Net's path of a block inside its encoder, and whether dropout layers apply to it."""
    block, *inside = path
    if spec.block == "plain":
        return f"stages.{stage}.0.convs.{block}", True
    if not inside:
        return "stem.convs.0", True
    number = int(block) - (stage == 0)  # our first stage begins with the stem
    names = ".".join(_RESIDUAL.get(name, name) for name in inside)
    return f"stages.{stage}.blocks.{number}.{names}", inside[0] == "first"


def _block(path: str, layer: str, tensor: str, *, dropout: bool) -> list[str]:
    place = 0 if layer == "conv" else 1 + dropout
    return [f"{path}.{layer}.{tensor}", f"{path}.all_modules.{place}.{tensor}"]


def _is_optional_bias(ours: str) -> bool:
    """Biases that ``conv_bias`` rules: of all convolutions but the outputs' (shortcuts have none anyway)."""
    return ours.endswith(".conv.bias") or (ours.startswith("ups.") and ours.endswith(".bias"))


def _check_names(theirs: Mapping[str, Tensor], wanted: Mapping[str, tuple[str, ...]]) -> None:
    known = {name for given in wanted.values() for name in given}
    for problem, names in (("is missing", known - theirs.keys()), ("is unknown", theirs.keys() - known)):
        if names:
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{min(names)} {problem}{more}")


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() or torch.equal(a, b)


def _plain(tensor: Tensor) -> Tensor:
    """In float32, counters as they are."""
    return tensor.float().contiguous() if tensor.is_floating_point() else tensor
