"""The batches of a training: from the config's sampler and loader, and what is left to the training device."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from decathlete.augmentation.batch import RawBatch
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.loading.loaders import LOADERS, LoaderContext
from decathlete.loading.samplers import SAMPLERS, Sampler, SamplerContext
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.config import TrainConfig
from decathlete.training.distributed import collectives as ranks
from decathlete.training.loop.task import TrainTask

UNENDING = 1 << 40


def check_loader(config: TrainConfig) -> None:
    """Check, before anything is begun, that the config's loader is installed and can do its augmentation.

    Raises:
        OptionError: it cannot.
    """
    LOADERS.build(config.loader).check(config.augmentation)


def device_augmenter(task: TrainTask) -> Augmenter:
    """Return the augmentation that the training device does: all of it, or none after DALI."""
    on_device = LOADERS.build(task.config.loader).on_device(task.augmentation)
    if task.plan.previous_stage is not None:  # no loader corrupts masks
        on_device = on_device.with_corrupted_masks(source=task.augmentation)
    return _augmenter(task, on_device)


def make_loader(task: TrainTask, device: torch.device, *, first_step: int) -> Iterable[RawBatch]:
    """Return this process's batches from ``first_step`` on, for :func:`device_augmenter` on ``device``."""
    config, plan = task.config, task.plan
    store = PreparedStore.open(task.store)
    context = LoaderContext(
        store=store,
        sampler=make_sampler(task, store),
        augmenter=_augmenter(task, task.augmentation),
        n_channels=plan.network.in_channels,
        batch_size=plan.batch_size,
        steps=range(first_step, config.total_steps or UNENDING),
        rank=ranks.rank(),
        device=device,
    )
    return LOADERS.build(config.loader).batches(context)


def make_sampler(task: TrainTask, store: PreparedStore) -> Sampler:
    """Build the config's sampler of the training cases, which ``store`` contains."""
    context = SamplerContext(
        case_ids=task.train_ids,
        patch_size=task.plan.patch_size,
        global_batch=task.plan.batch_size * ranks.world_size(),
        seed=task.config.seed,
        has_ignore=task.plan.labels.ignore is not None,
        class_volumes=store.fingerprint.class_volumes,
        read_label=lambda case_id: store.case(case_id).read_label(),
    )
    return SAMPLERS.build(task.config.sampler, context)


def _augmenter(task: TrainTask, augmentation: AugmentationConfig) -> Augmenter:
    plan = task.plan
    return Augmenter(
        augmentation,
        patch_size=plan.patch_size,
        seed=task.config.seed,
        n_masks=plan.n_masks,
        n_previous=plan.n_previous,
        side_swap=plan.side_swap,
    )
