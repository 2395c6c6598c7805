"""The names that a checkpoint gives the tensors of a DynUNet: each once, as MONAI's flat names, and then as ours.

A Lightning checkpoint lists each tensor twice, flat (``input_block``, ``downsamples.N``, ``bottleneck``,
``upsamples.N``) and as the nested ``skip_layers`` that run. Upsamples are numbered from the coarsest. The first version
of NVIDIA's recipe had a U-Net of its own with the same parts, whose norms and last convolutions have other names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from decathlete.interop.safe_checkpoint import is_hollow

Kind = Literal["dynunet", "recipe2021"]
"""MONAI's network, or the one of the recipe's first version."""

EXPECTED = (
    "input_block.conv1.conv.weight",
    "input_block.norm1.weight",
    "downsamples.0.conv1.conv.weight",
    "bottleneck.conv1.conv.weight",
    "upsamples.0.transp_conv.conv.weight",
    "upsamples.0.conv_block.conv1.conv.weight",
    "output_block.conv.conv.weight",
)
"""Some names that a DynUNet has, for messages."""
NAMED = 4
"""So many names or problems a message lists at most."""

_HOLLOW = "its tensors have more numbers than the checkpoint stores"
_FIRST = "input_block.conv1.conv.weight"
_SKIP = "skip_layers."
_LAYER = re.compile(r"((?:next_layer\.)*)(downsample|upsample|super_head)\.(.+)")
_2021 = (
    (re.compile(r"\bconv([12])\.norm\."), r"norm\1."),
    (re.compile(r"\btransp_conv\.(?!conv\.)"), "transp_conv.conv."),
    (re.compile(r"^(output_block|deep_supervision_heads\.\d+)\.conv\.(?!conv\.)"), r"\1.conv.conv."),
)
"""Names of the recipe's first version -> MONAI's."""
_PLACE = {"first": 1, "second": 2, "shortcut": 3}
"""Of a residual block's convolutions."""


class Misfit(ValueError):
    """Weights that are not a DynUNet's, or contradict each other; what is wrong in words."""


def find_tensors(state: object) -> tuple[Kind, dict[str, Tensor]]:
    """Whose names a checkpoint's state dict has, and the network's tensors by MONAI's flat names.

    Whatever stands before the names (``model.``) is left out, and so is what is not the network's.

    Raises:
        Misfit: there is no DynUNet in it, or one that contradicts itself.
    """
    if not isinstance(state, Mapping):
        raise Misfit("holds no weights by their names")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    flat = _without_prefix(tensors)
    is_old = any(pattern.search(name) for name in flat for pattern, _ in _2021)
    if is_old:
        flat = {_modern(name): value for name, value in flat.items()}
    if any(is_hollow([value]) for value in flat.values()):  # before any are compared, number by number
        raise Misfit(_HOLLOW)
    once = _once(flat)
    if is_hollow(once.values()):
        raise Misfit(_HOLLOW)
    return "recipe2021" if is_old else "dynunet", once


def block_name(level: int, n_stages: int) -> str:
    """Of an encoder stage, finest first."""
    if level == 0:
        return "input_block"
    return "bottleneck" if level == n_stages - 1 else f"downsamples.{level - 1}"


def their_name(ours: str, n_stages: int) -> str:
    """``decoder.0.1.norm.weight`` -> ``upsamples.2.conv_block.norm2.weight``."""
    part, stage, *rest = ours.split(".")
    level = int(stage)
    if part == "heads":
        head = f"deep_supervision_heads.{level - 1}" if level else "output_block"
        return f"{head}.conv.conv.{rest[-1]}"
    up = f"upsamples.{n_stages - 2 - level}"
    if part == "ups":
        return f"{up}.transp_conv.conv.{rest[-1]}"
    block = f"{up}.conv_block" if part == "decoder" else block_name(level, n_stages)
    number = _PLACE.get(rest[1], int(rest[0]) + 1)
    *_, layer, value = rest
    return f"{block}.conv{number}.conv.{value}" if layer == "conv" else f"{block}.norm{number}.{value}"


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names from ``input_block`` or ``skip_layers`` on; what has another prefix (a loss's weights) is left out."""
    firsts = (_FIRST, f"{_SKIP}downsample.{_FIRST.partition('.')[2]}")
    prefixes = {name.removesuffix(first) for name in tensors for first in firsts if _ends_with(name, first)}
    if len(prefixes) != 1:
        found = ", ".join(list(tensors)[:NAMED]) or "no tensors"
        problem = "several networks" if prefixes else "no DynUNet"
        raise Misfit(f"holds {problem}: it has {found}, ...; expected are names like {', '.join(EXPECTED)}")
    (prefix,) = prefixes
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _ends_with(name: str, first: str) -> bool:
    return name == first or name.endswith(f".{first}")


def _modern(name: str) -> str:
    for pattern, replacement in _2021:
        name = pattern.sub(replacement, name)
    return name


def _once(flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``skip_layers``' tensors by their flat names, where they are not there already."""
    deepest = max((name.count("next_layer.") for name in flat if name.startswith(_SKIP)), default=0)
    out = {name: value for name, value in flat.items() if not name.startswith(_SKIP)}
    for name, value in flat.items():
        if not name.startswith(_SKIP):
            continue
        plain = _flat_name(name.removeprefix(_SKIP), deepest)
        if plain in out and not _same(out[plain], value):
            raise Misfit(f"{name} and {plain} ought to be the same and differ")
        out.setdefault(plain, value)
    return out


def _flat_name(nested: str, deepest: int) -> str:
    """``next_layer.downsample.conv1...`` -> ``downsamples.0.conv1...``."""
    found = _LAYER.fullmatch(nested)
    if found is None:
        return f"bottleneck.{nested.replace('next_layer.', '')}"
    level, part, rest = found[1].count("next_layer."), found[2], found[3]
    if part == "upsample":
        return f"upsamples.{deepest - 1 - level}.{rest}"
    if part == "super_head":
        return f"deep_supervision_heads.{level - 1}.{rest}"
    return f"downsamples.{level - 1}.{rest}" if level else f"input_block.{rest}"


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and (a.data_ptr() == b.data_ptr() or torch.equal(a, b))
