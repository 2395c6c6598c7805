"""The training step without numbers: on torch's meta device tensors of other devices, and asking for values, fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from decathlete.augmentation.batch import collate
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.networks.build import build_network
from decathlete.training.config import TrainConfig
from decathlete.training.distributed.sync_batch_norm import convert_to_sync_batch_norm
from decathlete.training.loop.step import clip_gradients, make_gradients, pack_loss_and_finite
from decathlete.training.objective.deep_supervision import DeepSupervision
from decathlete.training.objective.ema import EMA
from decathlete.training.objective.losses import LOSSES, LossContext
from decathlete.training.objective.optimizer_steps import build_optimizer
from factories import make_test_network, make_test_plan
from training_support import REGIONS

META = torch.device("meta")


def raw_batch(augmenter: Augmenter, patch_size: tuple[int, ...], n: int = 8):
    draws = [augmenter.draw(0, i) for i in range(n)]
    assert {draw.matrix is None for draw in draws} == {True, False}, "plain and warped samples are both wanted"
    images = [np.zeros((1, *draw.size), np.float32) for draw in draws]
    labels = [np.zeros(draw.size, np.uint8) for draw in draws]
    return collate(0, range(n), draws, ["case"] * n, images, labels)


def test_asking_meta_is_an_error():
    for ask in (float, bool, torch.Tensor.item, torch.Tensor.cpu, torch.Tensor.tolist):
        with pytest.raises((RuntimeError, NotImplementedError)):
            ask(torch.zeros((), device=META))


@pytest.mark.parametrize("optimizer_name", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("norm", ["instance", "batch", "group"])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_step_from_the_raw_batch_to_the_average_asks_the_device_nothing(dims, regions, norm, optimizer_name):
    network = make_test_network(dims, out_channels=2 if regions else 3).revised(norm=norm)
    plan = make_test_plan(dims, network=network, **({"labels": REGIONS} if regions else {}))
    config = TrainConfig(optimizer=optimizer_name, loss="focal" if regions else "cross_entropy")
    augmenter = Augmenter(AugmentationConfig.default(dims), patch_size=plan.patch_size, seed=1)
    batch = augmenter(raw_batch(augmenter, plan.patch_size), META)
    with META:
        trained = build_network(plan.network)
    convert_to_sync_batch_norm(trained)
    one_head = LOSSES.build(config.loss, LossContext(labels=plan.labels))
    loss = DeepSupervision(one_head, heads=plan.network.heads).to(META)
    optimizer = build_optimizer(trained.parameters(), config.optimizer)
    average = EMA(trained)
    value = make_gradients(trained, loss, optimizer, batch)
    told = pack_loss_and_finite(value, clip_gradients(optimizer, config.optimizer.gradient_clip))
    optimizer.step()
    average.update(trained, 0.9)
    assert (told.device, told.shape) == (META, (2,))
    assert all(p.grad is not None and p.grad.device == META for p in trained.parameters())


def gradients_of(values: list[float]) -> torch.optim.SGD:
    weights = [nn.Parameter(torch.zeros(())) for _ in values]
    for weight, value in zip(weights, values, strict=True):
        weight.grad = torch.tensor(value)
    return torch.optim.SGD(weights, lr=1.0)


def test_gradients_are_clipped_together_and_their_norm_told():
    optimizer = gradients_of([3.0, 4.0])
    assert clip_gradients(optimizer, 0.0) == 5.0
    assert [float(p.grad) for p in optimizer.param_groups[0]["params"]] == pytest.approx([3, 4], rel=1e-5)
    assert clip_gradients(optimizer, 1.0) == pytest.approx(5.0)
    assert [float(p.grad) for p in optimizer.param_groups[0]["params"]] == pytest.approx([0.6, 0.8], rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "norm", "finite"),
    [(2.0, None, 1), (2.0, 1.0, 1), (2.0, float("inf"), 0), (2.0, float("nan"), 0), (float("nan"), 1.0, 0)],
)
def test_the_report_is_the_loss_and_whether_the_step_is_finite(loss, norm, finite):
    told = pack_loss_and_finite(torch.tensor(loss), None if norm is None else torch.tensor(norm))
    torch.testing.assert_close(told, torch.tensor([loss, finite]), equal_nan=True)
