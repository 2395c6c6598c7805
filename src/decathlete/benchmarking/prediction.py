"""Measures predictions of batches of windows, or of whole volumes by sliding windows, with untrained weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from math import prod
from typing import cast

import numpy as np
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist

from decathlete.benchmarking import batches
from decathlete.benchmarking.instruments import PeakMemory, Profiler, Stopwatch
from decathlete.benchmarking.task import TRACE, BenchmarkTask, make_measurement
from decathlete.inference.engines.torch import TorchEngine
from decathlete.inference.windows.flips import mean_over_flips
from decathlete.inference.windows.memory import default_sums_bytes
from decathlete.inference.windows.sweep import sweep
from decathlete.networks.build import build_network
from decathlete.networks.layout import layout_of
from decathlete.training.loop.task import TrainTask
from decathlete.training.reporting.progress import TrainingProgress

Prediction = tuple[int, Callable[[], None]]
"""Number of voxels of a prediction, and a function that computes it."""


def measure_prediction(
    task: TrainTask,
    progress: TrainingProgress,  # noqa: ARG001 - progress would disturb the measurement
    environment: ClusterEnvironment | None = None,
) -> None:
    """Measure predictions in this process and write the measurement to the task's folder.

    Args:
        task: a :class:`BenchmarkTask`.
        progress: not used.
        environment: of several processes, which start the measurement together; ``None``: one process.

    Raises:
        InsufficientMemoryError: the device's memory is too small for one window.
    """
    task = cast(BenchmarkTask, task)
    rank = environment.global_rank() if environment else 0
    device = task.device(rank)
    network = build_network(task.plan.network, seed=task.config.seed).eval()
    engine = TorchEngine(network, device=device, precision=task.options.precision, layout=task.options.layout)
    with _process_group(environment):
        predictions = iter(_volumes(task, engine) if task.options.volumes else _windows(task, engine))
        for _ in range(task.options.warmup):
            next(predictions)[1]()
        _wait_for_others()
        _measure(task, engine, predictions, rank, layout=layout_of(network))
        if task.options.profile and rank == 0:
            _profile(task, device, predictions)


def _measure(
    task: BenchmarkTask,
    engine: TorchEngine,
    predictions: Iterator[Prediction],
    rank: int,
    *,
    layout: torch.memory_format,
) -> None:
    stopwatch, memory, voxels = Stopwatch(engine.device), PeakMemory(engine.device), 0
    memory.start()
    for _ in range(task.options.steps):
        size, predict = next(predictions)
        stopwatch.start()
        predict()
        stopwatch.stop()
        voxels += size
    make_measurement(
        stopwatch.seconds,
        memory.stop(),
        images=task.options.steps * (1 if task.options.volumes else task.plan.batch_size),
        voxels=voxels,
        precision=engine.precision,
        layout=layout,
    ).save(task.measurement_path(rank))


def _profile(task: BenchmarkTask, device: torch.device, predictions: Iterator[Prediction]) -> None:
    profiler = Profiler(device, task.folder / TRACE)
    profiler.start()
    for _ in range(task.options.n_profiled_steps):
        next(predictions)[1]()
    profiler.stop()


def _windows(task: BenchmarkTask, engine: TorchEngine) -> Iterator[Prediction]:
    voxels = task.plan.batch_size * prod(task.plan.patch_size)
    flip_axes = task.plan.mirrored_axes if task.options.window.tta else ()

    def predict(windows: Tensor) -> None:
        mean_over_flips([engine], windows, flip_axes, side_swap=task.plan.side_swap)

    for windows in cycle(batches.load_windows(task, engine.device)):
        yield voxels, partial(predict, windows)


def _volumes(task: BenchmarkTask, engine: TorchEngine) -> Iterator[Prediction]:
    window = task.options.window.revised(batch_size=task.plan.batch_size)

    def predict(image_CZYX: NDArray[np.float32]) -> None:
        for _slab in sweep(
            [engine],
            torch.as_tensor(image_CZYX),
            plan=task.plan,
            window=window,
            mirror_axes=task.plan.mirrored_axes,
            sums_bytes=default_sums_bytes(engine.device),
        ):
            pass

    for image_CZYX in batches.iterate_volumes(task):
        yield prod(image_CZYX.shape[1:]), partial(predict, image_CZYX)


@contextmanager
def _process_group(environment: ClusterEnvironment | None) -> Iterator[None]:
    """Connect the processes, so that they start together and share the machine during the whole measurement."""
    if environment is None:
        yield
        return
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://{environment.main_address}:{environment.main_port}",
        rank=environment.global_rank(),
        world_size=environment.world_size(),
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _wait_for_others() -> None:
    if dist.is_initialized():
        dist.barrier()
