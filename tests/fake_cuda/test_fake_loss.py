"""The loss on a fake CUDA device: every variant, of logits as autocast leaves them, without waiting."""

from __future__ import annotations

import pytest
import torch

from decathlete.core.labels import LabelSet
from decathlete.networks.precision import autocast
from decathlete.training.objective.losses import LOSSES
from training_support import REGIONS, make_loss

CLASSES = LabelSet.from_names(["a", "b"])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("term", LOSSES.names())
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("ignore", [None, 9])
@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_loss_is_float32_on_the_device_and_never_waits(cuda, dims, labels, ignore, batch_dice, term, precision):
    labels = LabelSet.model_validate(labels.model_dump() | {"ignore": ignore})
    loss = make_loss(labels, heads=2, name=term, batch_dice=batch_dice).to(cuda.device)
    waited = len(cuda.waits)  # moving the loss there is done once
    label_B = torch.zeros(2, *(8,) * dims, dtype=torch.uint8, device=cuda.device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    heads = [
        torch.zeros(2, labels.n_outputs, *(n,) * dims, dtype=dtype, device=cuda.device, requires_grad=True)
        for n in (8, 4)
    ]
    with autocast(precision, cuda.device):
        total = loss(heads, label_B)
    assert (total.device, total.dtype, total.shape) == (cuda.device, torch.float32, ())
    assert total.requires_grad
    assert cuda.waits[waited:] == []
