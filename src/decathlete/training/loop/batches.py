"""Where a training's batches come from, and what is left to be done to them on the training device."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from decathlete.augmentation.batch import RawBatch
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.loading.dali import DaliLoader, check_dali
from decathlete.loading.loader import PatchLoader
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.config import TrainConfig
from decathlete.training.distributed import collectives as ranks
from decathlete.training.loop.task import TrainTask

UNENDING = 1 << 40


def check_loader(config: TrainConfig) -> None:
    """Whether the loader asked for is there and can do what is asked of it; told before anything is begun.

    Raises:
        OptionError: it cannot.
    """
    if config.loader == "dali":
        check_dali(config.augmentation)


def device_augmenter(task: TrainTask) -> Augmenter:
    """What is done to batches on the training device: all augmentation, or none after DALI."""
    return _augmenter(task, AugmentationConfig.none() if task.config.loader == "dali" else task.augmentation)


def make_loader(task: TrainTask, device: torch.device, *, first_step: int) -> Iterable[RawBatch]:
    """This process's batches from ``first_step`` on, for :func:`device_augmenter` on ``device``."""
    config, plan = task.config, task.plan
    with_dali = config.loader == "dali"
    reader = PatchLoader(
        PreparedStore.open(task.store),
        task.train_ids,
        plan,
        _augmenter(task, task.augmentation),
        batch_size=plan.batch_size,
        steps=range(first_step, config.total_steps or UNENDING),
        rank=ranks.rank(),
        world=ranks.world_size(),
        oversampling=config.oversampling,
        nvol=config.nvol,
        seed=config.seed,
        n_readers=config.readers,
        prefetch=config.prefetch,
        pin_for=device if device.type == "cuda" and not with_dali else None,
    )
    if with_dali:
        return DaliLoader(reader, n_channels=plan.network.in_channels, device=device, n_threads=config.readers)
    return reader


def _augmenter(task: TrainTask, augmentation: AugmentationConfig) -> Augmenter:
    plan = task.plan
    return Augmenter(
        augmentation, patch_size=plan.patch_size, seed=task.config.seed, n_masks=int(plan.foreground_channel)
    )
