"""Augmenting patches on one core: nnU-Net's default pipeline, MONAI's transforms, DALI's operators and ours.

The same transforms with the same probabilities and ranges (nnU-Net v2's defaults). Cutting from the volume is left
out: each contender gets an array of the size it asks for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workload import Contender, Measured, Work, Workload

ROTATION = np.pi / 6
"""Greatest angle of every contender: nnU-Net's for volumes that are not flat."""
MARGIN = 1.6
"""The source array is so much larger than the patch, along each axis, that any contender finds its crop in it."""


def _source(work: Work) -> tuple[Any, Any]:
    """Image (C, Z, Y, X), float32, and label (1, Z, Y, X), int16, of made-up values."""
    rng = np.random.default_rng(0)
    shape = [round(MARGIN * n) for n in work["patch"]]
    image = rng.standard_normal((work["channels"], *shape), np.float32)
    return image, rng.integers(0, 3, size=(1, *shape)).astype(np.int16)


def _centre(array: Any, size: Any) -> Any:
    """The middle of ``array``'s last axes."""
    spatial = array.shape[-len(size) :]
    return array[(..., *(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(spatial, size, strict=True)))]


def _rate(work: Work, one: Callable[[int], object], *, each: int = 1) -> Measured:
    """Patches a second of ``one(i)``, which makes ``each`` patches."""
    one(0)
    began = time.perf_counter()
    n = 0
    while n * each < work["patches"]:
        n += 1
        one(n)
    return Measured(amounts=(n * each / (time.perf_counter() - began),))


def ours(work: Work, folder: Path) -> Measured:
    import torch

    torch.set_num_threads(1)
    from decathlete.augmentation.batch import collate
    from decathlete.augmentation.config import AugmentationConfig
    from decathlete.augmentation.pipeline import Augmenter

    patch, n_batch = tuple(work["patch"]), work["batch"]
    config = AugmentationConfig.default(len(patch))
    config = config.revised(rotation={"degrees": np.rad2deg(ROTATION)})
    augmenter = Augmenter(config, patch_size=patch, seed=1)
    image, label = _source(work)
    label = label[0].astype(np.uint8)

    def one(step: int) -> object:
        indices = range(n_batch)
        draws = [augmenter.draw(step, index) for index in indices]
        images = [_centre(image, draw.size) for draw in draws]
        labels = [_centre(label, draw.size) for draw in draws]
        return augmenter(collate(step, indices, draws, ["case"] * n_batch, images, labels), "cpu")

    return _rate(work, one, each=n_batch)


def nnunet(work: Work, folder: Path) -> Measured:
    import torch
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.set_num_threads(1)
    patch, angle = tuple(work["patch"]), (-ROTATION, ROTATION)
    transforms = nnUNetTrainer.get_training_transforms(patch, angle, None, tuple(range(len(patch))), False)
    initial = get_patch_size(patch, angle, angle, angle, (0.85, 1.25))
    image, label = (torch.from_numpy(np.ascontiguousarray(_centre(a, initial))) for a in _source(work))
    return _rate(work, lambda _: transforms(image=image.clone(), segmentation=label.clone()))


def monai(work: Work, folder: Path) -> Measured:
    import torch
    from monai import transforms as mt

    torch.set_num_threads(1)
    patch, both = tuple(work["patch"]), ["image", "label"]
    n_axes = len(patch)
    pipeline = mt.Compose(
        [
            mt.RandAffined(
                both,
                prob=0.36,  # rotated or scaled: 1 - 0.8 * 0.8
                rotate_range=(ROTATION,) * n_axes,
                scale_range=((-0.3, 0.4),) * n_axes,
                spatial_size=patch,
                mode=("bilinear", "nearest"),
            ),
            mt.RandGaussianNoised(["image"], prob=0.1, std=0.316, sample_std=True),
            mt.RandGaussianSmoothd(["image"], prob=0.1, sigma_x=(0.5, 1), sigma_y=(0.5, 1), sigma_z=(0.5, 1)),
            mt.RandScaleIntensityd(["image"], prob=0.15, factors=0.25),
            mt.RandAdjustContrastd(["image"], prob=0.15, gamma=(0.75, 1.25)),
            mt.RandSimulateLowResolutiond(
                ["image"], prob=0.125, zoom_range=(0.5, 1), upsample_mode="trilinear" if n_axes == 3 else "bilinear"
            ),
            mt.RandAdjustContrastd(["image"], prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
            mt.RandAdjustContrastd(["image"], prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
            *(mt.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(n_axes)),
        ]
    )
    pipeline.set_random_state(seed=0)
    image, label = (torch.from_numpy(a) for a in _source(work))
    return _rate(work, lambda _: pipeline({"image": image, "label": label}))


def dali(work: Work, folder: Path) -> Measured:
    from workloads._dali import augmentation

    patch, n_batch = tuple(work["patch"]), work["batch"]
    pipeline = augmentation(*_source(work), patch, n_batch, rotation=ROTATION)
    return _rate(work, lambda _: pipeline.run(), each=n_batch)


WORKLOAD = Workload(
    name="augment",
    title="Augmenting patches, nnU-Net's transforms and probabilities",
    unit="patches/s",
    lower_is_better=False,
    sizes={
        "small": {"patch": (16, 24, 24), "channels": 1, "batch": 2, "patches": 4},
        "full": {"patch": (64, 128, 128), "channels": 1, "batch": 2, "patches": 60},
        "2d": {"patch": (256, 224), "channels": 1, "batch": 12, "patches": 600},
    },
    contenders=(
        Contender(name="ours", environment="ours", run=ours),
        Contender(name="nnunet", environment="peers", run=nnunet),
        Contender(name="monai", environment="peers", run=monai),
        Contender(name="dali", environment="ours", run=dali),
    ),
)
