"""Networks by one name, for ``--network``: an architecture, its kind or size, and the memory that it is planned for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from decathlete.core.choices import Block, NetworkName

DEFAULT_ARCHITECTURE = "unet"
"""Registered name of the architecture where none is chosen; version 1 of the plan had no other."""
DEFAULT_MEMORY_GB = 8.0
"""Memory that training may use where neither ``--memory`` nor ``--network`` says otherwise, GB."""

MedNeXtSize = Literal["S", "B", "M", "L"]


@dataclass(frozen=True, kw_only=True)
class NetworkPreset:
    """What a name of ``--network`` stands for.

    Attributes:
        architecture: registered name.
        block: blocks of a U-Net's encoder.
        size: of a MedNeXt.
        memory_gb: GPU memory that patch and batch are sized for, unless ``--memory`` is given, GB.
    """

    architecture: str
    block: Block = "plain"
    size: MedNeXtSize = "S"
    memory_gb: float = DEFAULT_MEMORY_GB


NETWORK_PRESETS: dict[NetworkName, NetworkPreset] = {
    "plain": NetworkPreset(architecture=DEFAULT_ARCHITECTURE),
    "resenc-m": NetworkPreset(architecture=DEFAULT_ARCHITECTURE, block="residual", memory_gb=8),
    "resenc-l": NetworkPreset(architecture=DEFAULT_ARCHITECTURE, block="residual", memory_gb=24),
    "resenc-xl": NetworkPreset(architecture=DEFAULT_ARCHITECTURE, block="residual", memory_gb=40),
    "mednext-s": NetworkPreset(architecture="mednext", size="S"),
    "mednext-b": NetworkPreset(architecture="mednext", size="B"),
    "mednext-m": NetworkPreset(architecture="mednext", size="M"),
    "mednext-l": NetworkPreset(architecture="mednext", size="L"),
}
"""Memory of the residual encoders: Isensee et al., *nnU-Net Revisited*, MICCAI 2024."""
