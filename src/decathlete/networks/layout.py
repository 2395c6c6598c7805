"""Memory format of feature maps: it changes the speed of a network, and its results only by rounding."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import nn

from decathlete.core.choices import Layout
from decathlete.errors import OptionError
from decathlete.networks.precision import Precision
from decathlete.planning.network_spec import Dims


@runtime_checkable
class LayoutNetwork(Protocol):
    """A network that can keep its feature maps in a chosen memory format."""

    @property
    def dims(self) -> Dims:
        """Number of spatial axes."""
        ...

    @property
    def layout(self) -> torch.memory_format:
        """Memory format of weights and feature maps."""
        ...

    def set_layout(self, layout: torch.memory_format) -> None:
        """Change the memory format of weights and feature maps."""
        ...


def apply_layout(network: nn.Module, layout: Layout, *, device: torch.device, precision: Precision) -> None:
    """Set the memory format of a network; a network that has no choice stays as it is.

    Raises:
        OptionError: ``channels_last`` for a network that has no choice.
    """
    if isinstance(network, LayoutNetwork):
        network.set_layout(memory_format(layout, device, network.dims, precision))
    elif layout == "channels_last":
        raise OptionError(
            f"{type(network).__name__} networks keep feature maps with channels first", remedy="leave out --layout"
        )


def layout_of(network: nn.Module) -> torch.memory_format:
    """Return the memory format of a network's feature maps."""
    return network.layout if isinstance(network, LayoutNetwork) else torch.contiguous_format


def preferred_memory_format(device: torch.device, dims: Dims, precision: Precision) -> torch.memory_format:
    """Return the fastest layout for a network of ``dims`` axes that computes in ``precision`` on ``device``.

    This is channels last on CPUs: 3D convolutions of 32 channels and more on AMX tiles are four to five times as fast
    in it, and a training step takes 15 to 35 % less time with 32 features, up to 30 % less with 16 (2D with 16 gains
    nothing), if no operation copies the maps back (see :class:`~decathlete.networks.instance_norm.InstanceNorm`). It
    has not been measured on other devices; there maps stay contiguous.
    """
    if device.type == "cpu" and precision in ("fp32", "bf16"):
        return torch.channels_last if dims == 2 else torch.channels_last_3d
    return torch.contiguous_format


def memory_format(layout: Layout, device: torch.device, dims: Dims, precision: Precision) -> torch.memory_format:
    """Return torch's memory format for ``layout``; ``auto`` means :func:`preferred_memory_format`."""
    if layout == "auto":
        return preferred_memory_format(device, dims, precision)
    if layout == "channels_first":
        return torch.contiguous_format
    return torch.channels_last_3d if dims == 3 else torch.channels_last


def layout_name(layout: torch.memory_format) -> Layout:
    """Return the name of a memory format."""
    return "channels_first" if layout is torch.contiguous_format else "channels_last"
