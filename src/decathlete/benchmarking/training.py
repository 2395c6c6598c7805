"""Measures training steps: those of a real training, by its module, its trainer and its processes."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

from decathlete.augmentation.batch import RawBatch
from decathlete.benchmarking.batches import RandomFeed
from decathlete.benchmarking.clock import PeakMemory, Stopwatch
from decathlete.benchmarking.profiling import Profiler
from decathlete.benchmarking.task import TRACE, BenchmarkTask, measured
from decathlete.networks.layout import layout_of
from decathlete.training.loop.module import SegmentationModule
from decathlete.training.loop.task import TrainTask
from decathlete.training.reporting.progress import Progress
from decathlete.training.run import fit_module


def measure_training(
    task: TrainTask,
    progress: Progress,  # noqa: ARG001 - steps are not told of while they are measured
    environment: ClusterEnvironment | None = None,
) -> None:
    """Train for the task's steps and leave the report of them; as one of several processes if ``environment`` says so.

    Raises:
        DecathleteError: what a user can do something about.
    """
    task = cast(BenchmarkTask, task)
    module = SegmentationModule(task) if task.options.real else RandomModule(task)
    fit_module(module, [StepTimer(task)], environment)


class RandomModule(SegmentationModule):
    """The training as it is, fed with random numbers."""

    def train_dataloader(self) -> Iterable[RawBatch]:
        """All batches."""
        return RandomFeed(self, cast(BenchmarkTask, self.task))


class StepTimer(pl.Callback):  # type: ignore[misc]
    """Times steps from the end of one to the end of the next, so that whatever a training waits for is counted.

    First come the steps to warm up, then those that count, then those that are profiled.
    """

    def __init__(self, task: BenchmarkTask) -> None:
        self._task = task
        self._done = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Make what knows the device."""
        self._watch = Stopwatch(pl_module.device)
        self._memory = PeakMemory(pl_module.device)
        self._profiler: Profiler | None = None
        if self._task.options.profile and trainer.is_global_zero:
            self._profiler = Profiler(pl_module.device, self._task.folder / TRACE)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        first = self._task.options.warmup
        last = first + self._task.options.steps
        self._done += 1
        if first < self._done <= last:
            self._watch.stop()
        if self._done == first:
            self._memory.start()
        if first <= self._done < last:
            self._watch.start()
        if self._done == last:
            self._report(trainer.global_rank, layout_of(pl_module.network))
            if self._profiler is not None:
                self._profiler.start()
        if self._done == last + self._task.options.profiled and self._profiler is not None:
            self._profiler.stop()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        """One epoch is all."""
        trainer.should_stop = True

    def _report(self, rank: int, layout: torch.memory_format) -> None:
        task = self._task
        images = task.options.steps * task.plan.batch_size
        measured(
            self._watch.seconds,
            self._memory.stop(),
            images=images,
            voxels=images * prod(task.plan.patch_size),
            precision=task.hardware.precision,
            layout=layout,
        ).save(task.report_of(rank))
