"""What is computed with: batches and volumes of random numbers, or of prepared cases.

Letters: B samples, C channels; spatial axes are written ZYX, 2D batches lack Z.
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
from decathlete.benchmarking.fixed import SCAN
from decathlete.benchmarking.task import BenchmarkTask
from decathlete.core.rng import stream
from decathlete.loading.patch_loader import PatchLoader
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.loop.batches import UNENDING, make_sampler
from decathlete.training.loop.module import SegmentationModule

READY = 4
"""Batches made before the first step: they come round again and again, for making numbers is not measured."""


def random_batch(task: BenchmarkTask, augmenter: Augmenter, step: int) -> RawBatch:
    """Normal intensities and uniform classes, cut as ``augmenter`` draws for ``step``."""
    plan = task.plan
    numbers = stream(task.config.seed, "benchmark", step)
    indices = range(plan.batch_size)
    draws = [augmenter.draw(step, index) for index in indices]
    images = [numbers.standard_normal((len(plan.channels), *draw.size), np.float32) for draw in draws]
    labels = [numbers.integers(plan.labels.n_classes, size=draw.size, dtype=np.uint8) for draw in draws]
    return collate(step, indices, draws, ["random"] * len(indices), images, labels)


class RandomFeed:
    """A training's batches without reading: as many as it has steps.

    It declares an unending length, as :class:`~decathlete.training.loop.module.EpochBatches` does.
    """

    def __init__(self, module: SegmentationModule, task: BenchmarkTask) -> None:
        self._module = module
        self._task = task

    def __len__(self) -> int:
        return UNENDING

    def __iter__(self) -> Iterator[RawBatch]:
        module, n_steps = self._module, self._task.config.total_steps or 0
        ready = [random_batch(self._task, module.augmenter, step) for step in range(min(READY, n_steps))]
        if self._task.hardware.kind == "cuda":
            ready = [batch.pin_memory() for batch in ready]
        for step, batch in enumerate(islice(cycle(ready), n_steps)):
            if module.state.stopped_by:
                return
            yield replace(batch, step=step)


def windows(task: BenchmarkTask, device: torch.device) -> list[Tensor]:
    """A few batches of windows (batch, channel, spatial axes), on ``device`` already, as in a sliding window."""
    augmenter = Augmenter(AugmentationConfig.none(), patch_size=task.plan.patch_size, seed=task.config.seed)
    if not task.options.real:
        return [augmenter(random_batch(task, augmenter, 0), device)[0]]
    loader = PatchLoader(
        PreparedStore.open(task.store),
        make_sampler(task),
        augmenter,
        batch_size=task.plan.batch_size,
        steps=range(READY),
    )
    return [augmenter(loader.read(step), device)[0] for step in range(READY)]


def volumes(task: BenchmarkTask) -> Iterator[NDArray[np.float32]]:
    """Images CZYX without end: the prepared cases in turn, each read anew, or one of random numbers."""
    if not task.options.real:
        shape = task.options.shape or SCAN
        numbers = stream(task.config.seed, "benchmark")
        image_CZYX = numbers.standard_normal((len(task.plan.channels), *shape), np.float32)
        while True:
            yield image_CZYX
    store = PreparedStore.open(task.store)
    for case_id in cycle(store.case_ids):
        yield store.case(case_id).read_image()
