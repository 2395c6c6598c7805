"""What every optimizer promises, built in or of a plug-in."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from decathlete.training.config import TrainConfig
from decathlete.training.objective.optimizer_steps import build_optimizer, restore_optimizer, set_learning_rate
from decathlete.training.objective.optimizers import OPTIMIZERS, OptimizerSettings

pytestmark = pytest.mark.parametrize("name", OPTIMIZERS.names())


def minimise(network: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int) -> float:
    """The loss after steps towards a target that the network can reach."""
    x = torch.linspace(-1, 1, 32).unsqueeze(1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (network(x) - 3 * x).square().mean()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def one_layer() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def test_it_minimises(name: str) -> None:
    network = one_layer()
    settings = OPTIMIZERS.settings({"name": name, "learning_rate": 0.03, "weight_decay": 0})
    first, last = (minimise(network, build_optimizer(network.parameters(), settings), steps=n) for n in (1, 300))
    assert last < 0.05 * first


def test_it_has_the_settings_that_the_training_needs(name: str) -> None:
    settings = TrainConfig(optimizer=name).optimizer
    assert isinstance(settings, OptimizerSettings)
    assert settings.learning_rate > 0


def test_the_schedule_sets_its_rate(name: str) -> None:
    network = one_layer()
    before = copy.deepcopy(network.state_dict())
    settings = OPTIMIZERS.settings({"name": name, "weight_decay": 0})
    optimizer = build_optimizer(network.parameters(), settings)
    set_learning_rate(optimizer, 0.0)
    minimise(network, optimizer, steps=2)
    for tensor, old in zip(network.state_dict().values(), before.values(), strict=True):
        torch.testing.assert_close(tensor, old)


def test_it_resumes_as_if_it_had_not_stopped(name: str) -> None:
    whole, first = one_layer(), one_layer()
    settings = OPTIMIZERS.settings(name)
    minimise(whole, build_optimizer(whole.parameters(), settings), steps=6)
    optimizer = build_optimizer(first.parameters(), settings)
    minimise(first, optimizer, steps=3)
    resumed = copy.deepcopy(first)
    again = build_optimizer(resumed.parameters(), settings)
    restore_optimizer(again, optimizer.state_dict())
    minimise(resumed, again, steps=3)
    for a, b in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)
