"""Batches and volumes of random numbers or prepared cases.

Suffixes of names give the axes: C channels; ZYX spatial axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decathlete.augmentation.batch import RawBatch, collate
from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.pipeline import Augmenter
from decathlete.benchmarking.random_plan import RANDOM_VOLUME_SHAPE
from decathlete.benchmarking.task import BenchmarkTask
from decathlete.core.rng import stream
from decathlete.loading.patch_loader import PatchLoader
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.loop.batches import UNENDING, make_sampler
from decathlete.training.loop.module import SegmentationModule

N_READY_BATCHES = 4
"""Number of batches that are made before the first step and then repeated, so that making them is not measured."""


def make_random_batch(task: BenchmarkTask, augmenter: Augmenter, step: int) -> RawBatch:
    """Make a batch of normally distributed intensities and uniformly distributed classes for a step."""
    plan = task.plan
    numbers = stream(task.config.seed, "benchmark", step)
    indices = range(plan.batch_size)
    draws = [augmenter.draw(step, index) for index in indices]
    images = [numbers.standard_normal((plan.n_inputs, *draw.size), np.float32) for draw in draws]
    labels = [numbers.integers(plan.labels.n_classes, size=draw.size, dtype=np.uint8) for draw in draws]
    return collate(step, indices, draws, ["random"] * len(indices), images, labels)


class RandomBatches:
    """Random batches for a training, one for each step.

    The declared length is unlimited, as :class:`~decathlete.training.loop.epoch_batches.EpochBatches` does.
    """

    def __init__(self, module: SegmentationModule, task: BenchmarkTask) -> None:
        self._module = module
        self._task = task

    def __len__(self) -> int:
        return UNENDING

    def __iter__(self) -> Iterator[RawBatch]:
        module, n_steps = self._module, self._task.config.total_steps or 0
        batches = [
            make_random_batch(self._task, module.augmenter, step) for step in range(min(N_READY_BATCHES, n_steps))
        ]
        if self._task.hardware.kind == "cuda":
            batches = [batch.pin_memory() for batch in batches]
        for step, batch in enumerate(islice(cycle(batches), n_steps)):
            if module.state.stopped_by:
                return
            yield replace(batch, step=step)


def load_windows(task: BenchmarkTask, device: torch.device) -> list[Tensor]:
    """Load batches of windows, each (batch, channel, *spatial axes), to a device."""
    augmenter = Augmenter(AugmentationConfig.none(), patch_size=task.plan.patch_size, seed=task.config.seed)
    if not task.options.real:
        return [augmenter(make_random_batch(task, augmenter, 0), device)[0]]
    store = PreparedStore.open(task.store)
    loader = PatchLoader(
        store,
        make_sampler(task, store),
        augmenter,
        batch_size=task.plan.batch_size,
        steps=range(N_READY_BATCHES),
    )
    return [augmenter(loader.read(step), device)[0] for step in range(N_READY_BATCHES)]


def iterate_volumes(task: BenchmarkTask) -> Iterator[NDArray[np.float32]]:
    """Yield images CZYX without end: one of random numbers, or the prepared cases in turn, which are read each time."""
    if not task.options.real:
        shape = task.options.shape or RANDOM_VOLUME_SHAPE
        numbers = stream(task.config.seed, "benchmark")
        image_CZYX = numbers.standard_normal((task.plan.n_inputs, *shape), np.float32)
        while True:
            yield image_CZYX
    store = PreparedStore.open(task.store)
    for case_id in cycle(store.case_ids):
        yield store.case(case_id).read_image()
