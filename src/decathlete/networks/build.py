"""Build any network from its specification."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from decathlete.planning.architectures import architecture_of
from decathlete.planning.network_spec import NetworkSpec


def build_network(spec: NetworkSpec, *, seed: int | None = None) -> nn.Module:
    """Build the network that ``spec`` describes, on torch's default device.

    Under ``with torch.device("meta")`` the network has shapes but no values. Otherwise the weights are drawn on the
    CPU, so that they do not depend on the device.

    Args:
        seed: the same seed gives the same weights and does not change torch's global random state; ``None`` draws from
            that state.

    Raises:
        OptionError: the architecture is not installed.
    """
    architecture = architecture_of(spec)
    device = torch.get_default_device()
    if device.type == "meta":
        return architecture.build()
    with torch.device("cpu"), _seeded(seed):
        network = architecture.build()
    return network.to(device)


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Seed torch's CPU generator and restore its state afterwards."""
    if seed is None:
        yield
        return
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
