"""What the options of the optimizers do to a weight."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from decathlete.training.config import TrainConfig
from decathlete.training.objective import optimizer_steps
from decathlete.training.objective.optimizer_steps import build_optimizer, restore_optimizer


def walked(gradient: float, *, steps: int, **options: object) -> float:
    """A weight that was 1, after ``steps`` steps of rate 0.1 along a steady gradient."""
    weight = nn.Parameter(torch.ones(()))
    optimizer = build_optimizer([weight], TrainConfig.make(learning_rate=0.1, **options).optimizer)
    for _ in range(steps):
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    return float(weight.detach())


def test_momentum_of_sgd_is_nesterovs():
    assert walked(1.0, steps=2, optimizer="sgd", momentum=0.0, weight_decay=0) == pytest.approx(0.8)
    steps = 0.1 * (1 + 0.5) + 0.1 * (1 + 0.5 * 1.5)
    assert walked(1.0, steps=2, optimizer="sgd", momentum=0.5, weight_decay=0) == pytest.approx(1 - steps)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_weight_decay_shrinks_a_weight_that_no_gradient_moves(optimizer):
    assert walked(0.0, steps=1, optimizer=optimizer, weight_decay=0) == 1.0
    assert walked(0.0, steps=1, optimizer=optimizer, weight_decay=0.5) < 0.96


def test_only_adamw_keeps_decay_apart_from_the_gradient():
    assert walked(0.0, steps=1, optimizer="adamw", weight_decay=0.5) == pytest.approx(0.95)
    assert walked(0.0, steps=1, optimizer="adam", weight_decay=0.5) == pytest.approx(0.9)


def step_of(optimizer: torch.optim.Optimizer, gradient: float) -> None:
    for weight in optimizer.param_groups[0]["params"]:
        weight.grad = torch.full_like(weight, gradient)
    optimizer.step()


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_fused_steps_are_the_same_and_go_on_unfused(name, monkeypatch):
    """A CPU stands in for the GPU: it has the kernels, too."""

    def fresh(*, fused: bool) -> torch.optim.Optimizer:
        monkeypatch.setattr(optimizer_steps, "FUSED_DEVICES", ("cpu",) if fused else ("cuda",))
        optimizer = build_optimizer([nn.Parameter(torch.ones(3))], TrainConfig(optimizer=name).optimizer)
        assert bool(optimizer.param_groups[0]["fused"]) is optimizer_steps.has_fused_unscaling(optimizer) is fused
        return optimizer

    def weight_of(optimizer: torch.optim.Optimizer) -> torch.Tensor:
        return optimizer.param_groups[0]["params"][0].detach()

    plain, fused, other = fresh(fused=False), fresh(fused=True), fresh(fused=False)
    for gradient in (1.0, -0.5):
        step_of(plain, gradient)
        step_of(fused, gradient)
    torch.testing.assert_close(weight_of(fused), weight_of(plain))
    weight_of(other).copy_(weight_of(fused))
    restore_optimizer(other, fused.state_dict())
    assert not other.param_groups[0]["fused"]
    step_of(plain, 2.0)
    step_of(other, 2.0)
    torch.testing.assert_close(weight_of(other), weight_of(plain))
