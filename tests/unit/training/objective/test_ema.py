"""Averaged weights."""

from __future__ import annotations

import torch
from torch import nn

from decathlete.training.objective.ema import EMA


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def test_the_average_follows_by_the_decay():
    network = make()
    ema = EMA(network)
    before = network[0].weight.detach().clone()
    with torch.no_grad():
        network[0].weight += 1.0
    ema.update(network, 0.75)
    torch.testing.assert_close(ema.network[0].weight, before + 0.25)


def test_decay_zero_copies_and_buffers_are_always_copied():
    network = make()
    ema = EMA(network)
    network(torch.randn(4, 1, 5, 5))
    with torch.no_grad():
        network[0].weight *= 3
    ema.update(network, 0.0)
    for mine, theirs in zip(ema.state_dict().values(), network.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_averaged_network_is_apart_and_does_not_train():
    network = make()
    ema = EMA(network)
    assert not any(p.requires_grad for p in ema.network.parameters())
    assert not ema.network.training
    assert network.training
    assert network[0].weight.requires_grad


def test_state_survives_a_round_trip():
    network = make()
    ema, other = EMA(network), EMA(make())
    with torch.no_grad():
        network[0].bias += 2
    ema.update(network, 0.5)
    other.load_state_dict(ema.state_dict())
    torch.testing.assert_close(other.network[0].bias, ema.network[0].bias)
