"""Augmentation on a fake CUDA device: everything on one device, and the host never waits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decathlete.augmentation.batch import RawBatch, collate
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter

PATCHES = [(24, 20), (12, 16, 16), (4, 32, 32)]  # the last is rotated in its plane


def raw_batch(augmenter: Augmenter, n: int = 8, n_channels: int = 3) -> RawBatch:
    draws = [augmenter.draw(0, index) for index in range(n)]
    images = [np.ones((n_channels, *draw.size), np.float32) for draw in draws]
    labels = [np.ones(draw.size, np.uint8) for draw in draws]
    return collate(0, range(n), draws, ["case"] * n, images, labels)


def strong(dims: int) -> AugmentationConfig:
    """Every transform of intensities changes every sample, and half the samples are rotated or scaled."""
    config = AugmentationConfig.default(dims).model_dump()
    for name in ("noise", "blur", "brightness", "contrast", "low_resolution", "gamma_inverted", "gamma"):
        config[name] |= {"probability": 1.0, "channel_probability": 1.0}
    config["rotation"]["probability"] = 0.5
    return AugmentationConfig.model_validate(config)


@pytest.mark.parametrize("n_masks", [0, 1])
@pytest.mark.parametrize("patch_size", PATCHES, ids=str)
def test_all_transforms_queue_work_and_never_wait(cuda, patch_size, n_masks):
    augmenter = Augmenter(strong(len(patch_size)), patch_size=patch_size, seed=1, n_masks=n_masks)
    batch = raw_batch(augmenter)
    assert batch.plain
    assert batch.warped
    assert len(list(augmenter.strengths(0, batch.indices, 3 - n_masks))) == 7
    image_BC, label_B = augmenter(batch.pin_memory(), cuda.device)
    assert image_BC.device == label_B.device == cuda.device
    assert (image_BC.dtype, label_B.dtype) == (torch.float32, torch.uint8)
    assert (image_BC.shape, label_B.shape) == ((8, 3, *patch_size), (8, *patch_size))
    assert cuda.waits == []


def test_a_batch_in_pageable_memory_is_waited_for(cuda):
    augmenter = Augmenter(AugmentationConfig.none(), patch_size=(8, 8), seed=1)
    augmenter(raw_batch(augmenter), cuda.device)
    assert cuda.waits == ["copy to cuda"] * 2  # images and labels; no sample is warped
