"""Maps the tensor names in a checkpoint of a DynUNet to MONAI's flat names, and those to the names of our network.

A Lightning checkpoint lists each tensor twice: with a flat name (``input_block``, ``downsamples.N``, ``bottleneck``,
``upsamples.N``), and in the nested ``skip_layers``, which run. Upsamples are numbered from the coarsest. The first
version of NVIDIA's recipe had its own U-Net with the same parts; its norms and last convolutions have other names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from decathlete.interop.safe_checkpoint import is_larger_than_storage

Kind = Literal["dynunet", "recipe2021"]
"""Network of the checkpoint: MONAI's, or the network of the recipe's first version."""

EXPECTED = (
    "input_block.conv1.conv.weight",
    "input_block.norm1.weight",
    "downsamples.0.conv1.conv.weight",
    "bottleneck.conv1.conv.weight",
    "upsamples.0.transp_conv.conv.weight",
    "upsamples.0.conv_block.conv1.conv.weight",
    "output_block.conv.conv.weight",
)
"""Examples of tensor names of a DynUNet, for messages."""
MAX_LISTED = 4
"""Maximum number of names or problems in a message."""

_LARGER_THAN_STORAGE = "its tensors have more numbers than the checkpoint stores"
_FIRST = "input_block.conv1.conv.weight"
_SKIP = "skip_layers."
_LAYER = re.compile(r"((?:next_layer\.)*)(downsample|upsample|super_head)\.(.+)")
_2021 = (
    (re.compile(r"\bconv([12])\.norm\."), r"norm\1."),
    (re.compile(r"\btransp_conv\.(?!conv\.)"), "transp_conv.conv."),
    (re.compile(r"^(output_block|deep_supervision_heads\.\d+)\.conv\.(?!conv\.)"), r"\1.conv.conv."),
)
"""Patterns in names of the recipe's first version -> replacements that give MONAI's names."""
_CONV_NUMBERS = {"first": 1, "second": 2, "shortcut": 3}
"""Convolution in our residual block -> its number in MONAI's."""


class WeightsMismatchError(ValueError):
    """Weights do not belong to a DynUNet, or contradict each other."""


def find_tensors(state: object) -> tuple[Kind, dict[str, Tensor]]:
    """Return the kind of network in a state dict, and its tensors with MONAI's flat names.

    A common prefix of the names (``model.``) is removed; tensors of other parts than the network are left out.

    Raises:
        WeightsMismatchError: the state dict has no DynUNet, or contradicts itself.
    """
    if not isinstance(state, Mapping):
        raise WeightsMismatchError("contains no named weights")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    flat = _without_prefix(tensors)
    is_old = any(pattern.search(name) for name in flat for pattern, _ in _2021)
    if is_old:
        flat = {_rename_2021(name): value for name, value in flat.items()}
    if any(is_larger_than_storage([value]) for value in flat.values()):  # checked before values are compared
        raise WeightsMismatchError(_LARGER_THAN_STORAGE)
    merged = _merge_nested(flat)
    if is_larger_than_storage(merged.values()):
        raise WeightsMismatchError(_LARGER_THAN_STORAGE)
    return "recipe2021" if is_old else "dynunet", merged


def block_name(level: int, n_stages: int) -> str:
    """Return MONAI's name of an encoder stage; level 0 is the finest."""
    if level == 0:
        return "input_block"
    return "bottleneck" if level == n_stages - 1 else f"downsamples.{level - 1}"


def to_monai_name(name: str, n_stages: int) -> str:
    """Return MONAI's name of a tensor of our network.

    Example: ``decoder.0.1.norm.weight`` is ``upsamples.2.conv_block.norm2.weight`` in a network of 4 stages.
    """
    part, stage, *rest = name.split(".")
    level = int(stage)
    if part == "heads":
        head = f"deep_supervision_heads.{level - 1}" if level else "output_block"
        return f"{head}.conv.conv.{rest[-1]}"
    up = f"upsamples.{n_stages - 2 - level}"
    if part == "ups":
        return f"{up}.transp_conv.conv.{rest[-1]}"
    block = f"{up}.conv_block" if part == "decoder" else block_name(level, n_stages)
    number = _CONV_NUMBERS.get(rest[1], int(rest[0]) + 1)
    *_, layer, value = rest
    return f"{block}.conv{number}.conv.{value}" if layer == "conv" else f"{block}.norm{number}.{value}"


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefix of the network's names; leave out tensors with another prefix (e.g. weights of a loss)."""
    firsts = (_FIRST, f"{_SKIP}downsample.{_FIRST.partition('.')[2]}")
    prefixes = {name.removesuffix(first) for name in tensors for first in firsts if _ends_with(name, first)}
    if len(prefixes) != 1:
        names = ", ".join(list(tensors)[:MAX_LISTED]) or "no tensors"
        problem = "several networks" if prefixes else "no DynUNet"
        raise WeightsMismatchError(
            f"contains {problem}: it has {names}, ...; it needs names like {', '.join(EXPECTED)}"
        )
    (prefix,) = prefixes
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _ends_with(name: str, first: str) -> bool:
    return name == first or name.endswith(f".{first}")


def _rename_2021(name: str) -> str:
    for pattern, replacement in _2021:
        name = pattern.sub(replacement, name)
    return name


def _merge_nested(flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace the nested names of ``skip_layers`` by flat ones, so that each tensor has one name."""
    deepest = max((name.count("next_layer.") for name in flat if name.startswith(_SKIP)), default=0)
    out = {name: value for name, value in flat.items() if not name.startswith(_SKIP)}
    for name, value in flat.items():
        if not name.startswith(_SKIP):
            continue
        plain = _flat_name(name.removeprefix(_SKIP), deepest)
        if plain in out and not _same(out[plain], value):
            raise WeightsMismatchError(f"{name} and {plain} are different, but must be equal")
        out.setdefault(plain, value)
    return out


def _flat_name(nested: str, deepest: int) -> str:
    """Return the flat name: ``next_layer.downsample.conv1...`` is ``downsamples.0.conv1...``."""
    match = _LAYER.fullmatch(nested)
    if match is None:
        return f"bottleneck.{nested.replace('next_layer.', '')}"
    level, part, rest = match[1].count("next_layer."), match[2], match[3]
    if part == "upsample":
        return f"upsamples.{deepest - 1 - level}.{rest}"
    if part == "super_head":
        return f"deep_supervision_heads.{level - 1}.{rest}"
    return f"downsamples.{level - 1}.{rest}" if level else f"input_block.{rest}"


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and (a.data_ptr() == b.data_ptr() or torch.equal(a, b))
