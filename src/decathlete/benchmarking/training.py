"""Measures training steps with the module, the trainer and the processes of a real training."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

from decathlete.augmentation.batch import RawBatch
from decathlete.benchmarking.batches import RandomBatches
from decathlete.benchmarking.instruments import PeakMemory, Profiler, Stopwatch
from decathlete.benchmarking.task import TRACE, BenchmarkTask, make_measurement
from decathlete.networks.layout import layout_of
from decathlete.training.loop.module import SegmentationModule
from decathlete.training.loop.task import TrainTask
from decathlete.training.reporting.progress import TrainingProgress
from decathlete.training.run import fit_module


def measure_training(
    task: TrainTask,
    progress: TrainingProgress,  # noqa: ARG001 - progress would disturb the measurement
    environment: ClusterEnvironment | None = None,
) -> None:
    """Measure training steps in this process and write the measurement to the task's folder.

    Args:
        task: a :class:`BenchmarkTask`.
        progress: not used.
        environment: of several processes; ``None``: one process.

    Raises:
        DecathleteError: a problem that the user can solve.
    """
    task = cast(BenchmarkTask, task)
    module = SegmentationModule(task) if task.options.real else RandomModule(task)
    fit_module(module, [StepTimer(task)], environment)


class RandomModule(SegmentationModule):
    """A training with random batches."""

    def train_dataloader(self) -> Iterable[RawBatch]:
        """Return the random batches."""
        return RandomBatches(self, cast(BenchmarkTask, self.task))


class StepTimer(pl.Callback):  # type: ignore[misc]
    """Measures each step from the end of the previous step, so that waiting for data is included.

    Warm-up steps come first, then the measured steps, then the profiled steps.
    """

    def __init__(self, task: BenchmarkTask) -> None:
        self._task = task
        self._done = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Create the instruments for the device."""
        self._stopwatch = Stopwatch(pl_module.device)
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
            self._stopwatch.stop()
        if self._done == first:
            self._memory.start()
        if first <= self._done < last:
            self._stopwatch.start()
        if self._done == last:
            self._write_measurement(trainer.global_rank, layout_of(pl_module.network))
            if self._profiler is not None:
                self._profiler.start()
        if self._done == last + self._task.options.n_profiled_steps and self._profiler is not None:
            self._profiler.stop()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        """Stop after one epoch."""
        trainer.should_stop = True

    def _write_measurement(self, rank: int, layout: torch.memory_format) -> None:
        task = self._task
        images = task.options.steps * task.plan.batch_size
        make_measurement(
            self._stopwatch.seconds,
            self._memory.stop(),
            images=images,
            voxels=images * prod(task.plan.patch_size),
            precision=task.hardware.precision,
            layout=layout,
        ).save(task.measurement_path(rank))
