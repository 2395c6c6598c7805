"""Runs a benchmark and writes its record."""

from __future__ import annotations

import logging
import shutil
import signal
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from decathlete.augmentation.config import AugmentationConfig
from decathlete.benchmarking.machine import describe_machine, read_versions
from decathlete.benchmarking.options import BenchmarkOptions
from decathlete.benchmarking.prediction import measure_prediction
from decathlete.benchmarking.random_plan import RANDOM_VOLUME_SHAPE, make_random_plan
from decathlete.benchmarking.record import BenchmarkRecord, BenchmarkSettings, combine_memory, sum_throughput
from decathlete.benchmarking.task import TRACE, BenchmarkTask, Measurement
from decathlete.benchmarking.training import measure_training
from decathlete.core.files import remove_partials
from decathlete.core.latency import Latency
from decathlete.core.locks import reading
from decathlete.core.output_paths import check_output_folder, writable_folder
from decathlete.core.scratch import scratch_folder
from decathlete.errors import InterruptedRunError, OptionError
from decathlete.networks.build import build_network
from decathlete.networks.precision import supported_precision
from decathlete.planning.overrides import override, with_batch_size
from decathlete.planning.plan import Plan
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.config import TrainConfig
from decathlete.training.distributed.devices import choose_device, choose_hardware, launcher
from decathlete.training.distributed.spawn import spawn
from decathlete.training.loop.signals import restore_signal_handlers
from decathlete.training.reporting.progress import LogProgress
from decathlete.training.run_folder import check_plan, split
from decathlete.workflows.train import check_batch_size
from decathlete.workflows.workspace import Workspace

FOLDER = "benchmarks"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """Result of a benchmark.

    Attributes:
        record: the record.
        path: file of the record.
        trace: file of the profiler's trace, if there is one.
    """

    record: BenchmarkRecord
    path: Path
    trace: Path | None


def benchmark(options: BenchmarkOptions, *, workspace: Workspace = Workspace()) -> BenchmarkResult:
    """Measure training steps or predictions and write a record to ``<results>/benchmarks``.

    Existing records are kept.

    Args:
        options: what is measured and how.
        workspace: folders of prepared data and results.

    Raises:
        OptionError: options do not fit the machine or the task, or contradict each other.
        StoreError: the real data are not prepared.
        InterruptedRunError: a signal stopped the benchmark; nothing is written.
    """
    check_output_folder(workspace.results / FOLDER)
    options = _with_precision(options)
    store = PreparedStore.open(workspace.prepared_folder(options.task, options.dims)) if options.real else None
    plan = make_benchmark_plan(options, store)
    results = writable_folder(workspace.results / FOLDER)
    remove_partials(results)
    with scratch_folder() as folder, reading(store.folder) if store is not None else nullcontext():
        task = _task(options, plan, store, folder)
        log.info("%d warm-up steps, then %d measured steps", options.warmup, options.steps)
        _measure(task)
        measurements = [Measurement.load(task.measurement_path(rank)) for rank in range(options.devices)]
        return _write_record(task, measurements, results)


def make_benchmark_plan(options: BenchmarkOptions, store: PreparedStore | None = None) -> Plan:
    """Make the plan of a benchmark: that of the prepared data, or one for random data, changed by the options.

    Raises:
        OptionError: an option does not fit the plan.
        PlanError: an option would need other prepared data.
    """
    overrides = options.plan.overrides
    check_batch_size(TrainConfig(batch_size=options.batch_size), overrides)
    plan = store.plan if store is not None else make_random_plan(options.task, options.dims, options.plan)
    if options.patch is not None:
        overrides = (f"patch_size={','.join(map(str, options.patch))}", *overrides)
    plan = with_batch_size(plan, options.batch_size)
    plan = override(plan, overrides, options=None if store is not None else options.plan)
    if store is not None:
        check_plan(plan, store)
    return plan


def _with_precision(options: BenchmarkOptions) -> BenchmarkOptions:
    """Replace ``amp`` by the precision that it selects on this device."""
    if not options.amp:
        return options
    on_cuda = choose_device(options.device) == "cuda"
    return replace(options, amp=False, precision="fp16" if on_cuda else "bf16")


def _task(options: BenchmarkOptions, plan: Plan, store: PreparedStore | None, folder: Path) -> BenchmarkTask:
    config = TrainConfig.make(
        epochs=1,
        steps_per_epoch=options.warmup + options.steps + options.n_profiled_steps,
        batch_size=plan.batch_size,
        precision=options.precision if options.mode == "train" else "auto",  # an engine chooses its own precision
        layout=options.layout,
        device=options.device,
        devices=options.devices,
        compile=options.compile,
        augmentation=None if options.augment else AugmentationConfig.none(),
        val_cases=0,
        loggers=(),
    )
    if options.devices > 1 and launcher() is not None:
        raise OptionError(
            "a launcher (torchrun, srun) has started this process",
            remedy="start it without a launcher",
        )
    hardware = choose_hardware(config)
    precision = supported_precision(hardware.precision, plan.network, requested=config.precision)
    return BenchmarkTask(
        store=store.folder if store is not None else folder,
        folder=folder,
        plan=plan,
        config=config,
        hardware=replace(hardware, precision=precision),
        train_ids=split(store, "all")[0] if store is not None else (),
        val_ids=(),
        started=time.monotonic(),
        log_level=logging.getLogger("decathlete").getEffectiveLevel(),
        options=options,
    )


def _measure(task: BenchmarkTask) -> None:
    """Measure in this process or in one process per device. Each writes its measurement to the task's folder."""
    measure = measure_training if task.options.mode == "train" else measure_prediction
    with restore_signal_handlers():
        if task.hardware.spawned:
            spawn(measure, task, LogProgress())
        else:
            measure(task, LogProgress())
    if not all(task.measurement_path(rank).is_file() for rank in range(task.options.devices)):
        raise InterruptedRunError("the benchmark was stopped by a signal", signal_number=signal.SIGTERM)


def _write_record(task: BenchmarkTask, measurements: list[Measurement], results: Path) -> BenchmarkResult:
    now, options = datetime.now(UTC), task.options
    subject = "volumes" if options.volumes else options.mode
    stem = f"{now:%Y-%m-%dT%H%M%S}-{subject}-{options.dims}d-batch{task.plan.batch_size}"
    record = BenchmarkRecord(
        date=now.isoformat(timespec="seconds"),
        settings=_settings(task, measurements),
        machine=describe_machine(task.hardware, threads=measurements[0].threads),
        versions=read_versions(),
        throughput=sum_throughput(measurements),
        latency_ms=Latency.from_seconds([s for measurement in measurements for s in measurement.seconds]),
        peak_memory=combine_memory(measurements),
        seconds=tuple(measurement.seconds for measurement in measurements),
    )
    path = create_unique_file(results, stem)
    try:
        trace = path.with_suffix(".trace.json") if options.profile else None
        if trace is not None:
            shutil.move(task.folder / TRACE, trace)
            record = record.revised(trace=trace.name)
        record.save(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return BenchmarkResult(record=record, path=path, trace=trace)


def create_unique_file(folder: Path, stem: str) -> Path:
    """Create an empty file ``<stem>.json``, or ``<stem>-2.json``, ... Other processes cannot create the same file."""
    name, number = stem, 1
    while True:
        path = folder / f"{name}.json"
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
        number += 1
        name = f"{stem}-{number}"


def _settings(task: BenchmarkTask, measurements: list[Measurement]) -> BenchmarkSettings:
    options, plan = task.options, task.plan
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_network(plan.network).parameters())
    return BenchmarkSettings(
        mode=options.mode,
        dims=plan.dims,
        data="prepared" if options.real else "random",
        dataset=plan.dataset,
        patch_size=plan.patch_size,
        batch_size=plan.batch_size,
        network=plan.network,
        parameters=parameters,
        precision=measurements[0].precision,
        layout=measurements[0].layout,
        compiled=options.compile,
        device=task.hardware.kind,
        devices=options.devices,
        warmup=options.warmup,
        steps=options.steps,
        optimizer=task.config.optimizer.component if options.mode == "train" else None,
        augment=options.augment,
        volumes=options.volumes,
        volume_shape=(options.shape or RANDOM_VOLUME_SHAPE) if options.volumes and not options.real else None,
        overlap=options.window.overlap if options.volumes else None,
        blend=options.window.blend if options.volumes else None,
        tta=options.window.tta,
    )
