"""The fake device itself: what is wrong on a GPU is found on it, too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException


@pytest.fixture
def values(cuda) -> torch.Tensor:
    return torch.zeros(3, 4, device=cuda.device)


def test_factories_and_copies_lie_on_the_device(cuda, values):
    assert values.device == torch.ones(2).to("cuda").device == torch.tensor([1], device="cuda").device == cuda.device


def test_the_cpu_computes_for_real(cuda):
    assert torch.arange(4).sum().item() == 6
    assert np.array_equal(torch.ones(2).numpy(), [1, 1])
    assert cuda.waits == []


def test_tensors_of_two_devices_do_not_go_together(values):
    with pytest.raises(RuntimeError, match="device"):
        values + torch.ones(3, 4)
    with pytest.raises(RuntimeError, match="device"):
        values.index_copy_(0, torch.tensor([0]), values[:1])


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x[0, 0].item(),
        lambda x: float(x.sum()),
        lambda x: bool(x.any()),
        lambda x: x.tolist(),
        lambda x: x.cpu().numpy(),
        lambda x: x.index_put_((x > 0,), x[0]),
        lambda x: x.to("cpu", non_blocking=True),
        lambda x: torch.ones(2).to(x.device, non_blocking=True),
        lambda x: torch.ones(2).pin_memory().to(x.device),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
    ],
)
def test_waiting_for_the_device_is_noticed(cuda, values, ask):
    ask(values)
    assert len(cuda.waits) == 1


@pytest.mark.parametrize(
    "ask", [torch.nonzero, torch.unique, torch.bincount, lambda x: x[x > 0], lambda x: torch.equal(x, x)]
)
def test_results_of_a_shape_that_depends_on_numbers_are_an_error(values, ask):
    with pytest.raises((DynamicOutputShapeException, DataDependentOutputException)):
        ask(values[0].long())


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: torch.ones(2).pin_memory().to(x.device, non_blocking=True),
        lambda x: x.masked_fill(x > 0, 1.0),
        lambda x: x.index_put_((x > 0,), torch.tensor(1.0)),
        lambda x: x.add_(1).mul_(torch.tensor(2.0)),
        lambda x: (x.shape, x.device, len(x)),
        lambda x: torch.zeros(0).to(x.device),
    ],
)
def test_queueing_work_is_no_wait(cuda, values, ask):
    ask(values)
    assert cuda.waits == []
