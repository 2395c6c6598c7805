"""Stages of a network's encoder, of which a training may leave the first ones as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import nn

from decathlete.errors import OptionError


@runtime_checkable
class StagedNetwork(Protocol):
    """A network that names the modules of each stage of its encoder."""

    def encoder_stages(self) -> Sequence[Sequence[nn.Module]]:
        """Return the modules of each stage of the encoder, finest first, each in the order in which they are computed.

        The output of a stage's last module depends on the weights of this and the finer stages, and on no others. So a
        stem belongs to the first stage, and a module that reduces the resolution to the stage that it leads to.
        """
        ...


def first_stages(network: nn.Module, n_stages: int) -> Sequence[Sequence[nn.Module]]:
    """Return the modules of the first stages of the encoder, for ``--freeze-stages``.

    Raises:
        OptionError: the network does not name its stages, or has no more than ``n_stages``.
    """
    if not n_stages:
        return ()
    if not isinstance(network, StagedNetwork):
        raise OptionError(
            f"--freeze-stages {n_stages}: {type(network).__name__} networks do not name the stages of their encoder",
            remedy="leave out --freeze-stages; or, if the network is yours, add the method encoder_stages to it (see "
            "decathlete.networks.stages.StagedNetwork)",
        )
    stages = network.encoder_stages()
    if n_stages >= len(stages):
        raise OptionError(
            f"--freeze-stages {n_stages}: the network's encoder has {len(stages)} stage(s), and one must be trained",
            remedy=f"use at most {max(len(stages) - 1, 0)}",
        )
    return stages[:n_stages]


def freeze_stages(network: nn.Module, n_stages: int) -> None:
    """Exclude the weights of the first stages of the encoder from training; their batch norms keep their statistics.

    Raises:
        OptionError: as of :func:`first_stages`.
    """
    for modules in first_stages(network, n_stages):
        for module in modules:
            module.requires_grad_(False).eval()


def tensor_names(network: nn.Module, modules: Sequence[nn.Module]) -> tuple[str, ...]:
    """Return the names of those tensors in the state of a network that belong to some of its modules."""
    own = {id(tensor) for module in modules for tensor in module.state_dict(keep_vars=True).values()}
    return tuple(name for name, tensor in network.state_dict(keep_vars=True).items() if id(tensor) in own)
