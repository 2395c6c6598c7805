"""What a name of ``--network`` stands for: an architecture, its kind or size, and the memory that it is planned for.

Each architecture has its own names (:attr:`~decathlete.planning.architectures.Architecture.presets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_ARCHITECTURE = "unet"
"""Registered name of the architecture where none is chosen; version 1 of the plan had no other."""
DEFAULT_MEMORY_GB = 8.0
"""Memory that training may use where neither ``--memory`` nor ``--network`` says otherwise, GB."""


@dataclass(frozen=True, kw_only=True)
class NetworkPreset:
    """What a name of ``--network`` sets, besides the architecture.

    Attributes:
        fields: field of the specification -> its value.
        memory_gb: GPU memory that patch and batch are sized for, unless ``--memory`` is given, GB.
    """

    fields: Mapping[str, Any]
    memory_gb: float = DEFAULT_MEMORY_GB
