"""Train one fold, from the prepared store to the model bundle."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

from decathlete.augmentation.config import CASCADE_TRANSFORMS
from decathlete.core.files import remove
from decathlete.core.locks import locked_folder
from decathlete.errors import DecathleteError, InterruptedRunError
from decathlete.evaluation.metric_info import UNLEARNED_DICE
from decathlete.networks.build import build_network
from decathlete.networks.kernels import fast_kernels, restore_determinism
from decathlete.networks.precision import supported_precision
from decathlete.planning.overrides import with_batch_size
from decathlete.planning.plan import Plan
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.config import TrainConfig
from decathlete.training.distributed.devices import choose_hardware, launcher
from decathlete.training.distributed.failures import as_user_error
from decathlete.training.distributed.processors import pinned_to_cpus
from decathlete.training.distributed.rendezvous import Rendezvous
from decathlete.training.distributed.spawn import ended_at_once, spawn
from decathlete.training.loop.batches import check_loader
from decathlete.training.loop.callbacks import EpochEnd, StepReporter
from decathlete.training.loop.contention import AdaptThreads
from decathlete.training.loop.finishing import FEW_STEPS
from decathlete.training.loop.module import SegmentationModule
from decathlete.training.loop.signals import EndNow, restore_signal_handlers
from decathlete.training.loop.state import RunState
from decathlete.training.loop.task import LAST, TrainTask
from decathlete.training.pretrained import describe_seen_cases, start_from_pretrained
from decathlete.training.reporting.curves import check_loggers
from decathlete.training.reporting.progress import LogProgress, TrainingProgress
from decathlete.training.reporting.records import Fold, RunRecord
from decathlete.training.reporting.silence import silence_lightning
from decathlete.training.requirements import warn_of_memory
from decathlete.training.results import (
    MODEL,
    TrainResult,
    finish,
    finished_result,
    load_state,
    result_of,
    save_stopped_model,
)
from decathlete.training.run_folder import check_plan, claim, make_record, require_space

log = logging.getLogger(__name__)

__all__ = ["TrainResult", "train"]


def train(
    store: PreparedStore,
    fold: Fold,
    output: Path,
    config: TrainConfig = TrainConfig(),
    *,
    plan: Plan | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dataset_root: Path | None = None,
    previous_stage: Sequence[Path] = (),
    progress: TrainingProgress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TrainResult:
    """Train one fold (or, with ``"all"``, on every case) and write model and records to ``output``.

    ``output`` gets ``run.json``, ``logs.json``, ``logs.csv``, ``checkpoints/``, ``model/`` (final averaged weights:
    the result) and ``model_best/`` (those of the best validation).

    Args:
        plan: to train by, if it differs from the store's in network, patch or batch.
        resume: continue a stopped run; a finished one is returned as it is, an absent one is started.
        overwrite: replace what ``output`` holds (with ``resume``: only ``resume`` counts).
        dataset_root: of the raw images, noted for later validation on their own grids.
        previous_stage: of a cascade: folders of the models whose predictions are inputs; the model contains them.
        progress: receives steps and epochs; with several devices it must be picklable, else the log receives them.
        clock: returns the current time, seconds; a time budget is measured with it.

    Raises:
        OutputError: ``output`` holds another run, another process works in it, or it cannot be written.
        InterruptedRunError: SIGTERM or SIGINT came; everything is saved, and ``resume`` continues. After enough steps
            ``model/`` holds a model of the stopped run, which a resumption replaces.
        DecathleteError: the training diverged, or options, plan or store do not fit.
    """
    started = clock()
    silence_lightning()
    check_loggers(config)
    check_loader(config)
    plan = with_batch_size(plan or store.plan, config.batch_size)
    check_plan(plan, store)
    if config.pretrained is not None and not (output / LAST).is_file():
        _try_pretrained(plan, config, dataset_digest=store.fingerprint.dataset_digest, fold=fold)
    fresh = make_record(store, plan, fold, config, dataset_root)
    hardware = choose_hardware(config)
    precision = supported_precision(hardware.precision, plan.network, requested=config.precision)
    hardware = replace(hardware, precision=precision)
    rendezvous = Rendezvous(launcher() if hardware.world > 1 else None)
    with ExitStack() as locks:

        def lock_and_claim() -> str:
            locks.enter_context(locked_folder(output))
            return claim(output, fresh, resume=resume, overwrite=overwrite).model_dump_json()

        # No other process may look at the folder before the first one has claimed it, and perhaps cleared it.
        record = RunRecord.model_validate_json(rendezvous.run_on_rank_zero(lock_and_claim))
        task = TrainTask(
            store=store.folder,
            folder=output,
            plan=record.plan or plan,
            config=config,
            hardware=hardware,
            train_ids=record.train,
            val_ids=record.val,
            started=started,
            log_level=logging.getLogger("decathlete").getEffectiveLevel(),
            clock=clock,
            previous_stage=tuple(previous_stage),
        )
        return _run(task, record, progress or LogProgress(), rendezvous)


def _try_pretrained(plan: Plan, config: TrainConfig, *, dataset_digest: str, fold: Fold) -> None:
    """Log what a training takes over from a trained model, before its folder is claimed.

    If the model has seen held-out cases, log a warning.

    Raises:
        ModelError: the model does not fit. OptionError: the stages that are not trained do not fit it.
    """
    network = build_network(plan.network, seed=config.seed)
    for line in start_from_pretrained(network, plan, config).lines:
        log.info("%s", line)
    if seen := describe_seen_cases(plan, config, dataset_digest=dataset_digest, fold=fold):
        log.warning("%s", seen)


def _run(task: TrainTask, record: RunRecord, progress: TrainingProgress, rendezvous: Rendezvous) -> TrainResult:
    state, signal_number = _saved_state(task), 0
    if record.finished:
        return finished_result(task) if state is None else result_of(task, state)
    if state is None or state.outcome != "complete":
        require_space(task.folder, task.plan, n_checkpoints=2 if state is None else 1)
        warn_of_memory(task)
        _warn_of_short_coarse_start(task)
        _name_unused_mask_settings(task)
        state, signal_number = _fit(task, record, progress)
    if task.config.timed and state.step < FEW_STEPS:
        log.warning(
            "the training time ended after %d step(s): the model has hardly learned anything; train longer, "
            "or with a smaller patch, batch or network",
            state.step,
        )
    if unlearned := state.unlearned_structures():
        log.warning(
            "not learned: %s: Dice below %g in the validation at the end; train longer",
            ", ".join(unlearned),
            UNLEARNED_DICE,
        )
    rendezvous.run_on_rank_zero(lambda: finish(task, record))
    if signal_number:
        raise InterruptedRunError(
            "a signal came when the training was complete: its model is finished, nothing else was done",
            signal_number=signal_number,
            where=task.folder,
        )
    return result_of(task, state)


def _warn_of_short_coarse_start(task: TrainTask) -> None:
    start, n_epochs, first = task.plan.coarse_start, task.config.n_epochs, RunState()
    if start is None:
        return
    first.choose_grid(start.share, n_epochs=n_epochs)
    if not first.coarse:
        log.warning(
            "all of the training uses the plan's own grid: its coarse start, %g %% of the training, is shorter than "
            "one of %d epoch(s); use more epochs, or a larger share (--set coarse_start.share=SHARE)",
            100 * start.share,
            n_epochs,
        )


def _name_unused_mask_settings(task: TrainTask) -> None:
    config, plan = task.config.augmentation, task.plan
    if config is None or plan.previous_stage is not None:
        return
    for name in CASCADE_TRANSFORMS:
        if name in config.names:
            log.info("augmentation.%s changes nothing here: it is for the second stage of a cascade", name)


def _saved_state(task: TrainTask) -> RunState | None:
    if not task.last_checkpoint.is_file():
        return None
    return load_state(task)


def _fit(task: TrainTask, record: RunRecord, progress: TrainingProgress) -> tuple[RunState, int]:
    """Train in this process or in spawned ones; return the last state, and the signal that came too late to stop it.

    Raises:
        InterruptedRunError: by a signal.
    """
    if task.hardware.can_finish:
        remove(task.stopped_checkpoint)  # a kill may have left it
    with restore_signal_handlers():
        if task.hardware.spawned:
            asked = spawn(fit_here, task, progress)
        else:
            asked = fit_here(task, progress)
    state = _saved_state(task)
    if state is None or state.outcome != "complete":
        model = _describe_model(task, record, state)
        saved = "it is saved" if state is not None else "nothing is saved yet"
        raise InterruptedRunError(
            f"training was stopped by a signal; {saved}, {model}",
            signal_number=asked or (state.stopped_by if state is not None else 0) or signal.SIGTERM,
            where=task.folder,
        )
    return state, asked


def _describe_model(task: TrainTask, record: RunRecord, state: RunState | None) -> str:
    """Write the model of a stopped training, if it has one; return what became of it, in words."""
    if not task.hardware.can_finish:
        return "without a model: torchrun and srun leave no time for one"
    if task.stopped_checkpoint.is_file():
        try:
            save_stopped_model(task, record)
        except DecathleteError as problem:  # the stop itself succeeded
            log.warning("the stopped training has no model: %s", problem)
            return "without a model"
        return f"and a model of its weights so far is in {MODEL}/"
    steps = 0 if state is None else state.step - state.skipped
    if steps < FEW_STEPS:
        return f"without a model: {steps} training step(s) are too few for one"
    return "without a model"  # a warning said why


def fit_here(task: TrainTask, progress: TrainingProgress, environment: ClusterEnvironment | None = None) -> int:
    """Train in this process, as one of several if ``environment`` says so.

    Returns:
        The number of the signal that asked to stop; 0: none.

    Raises:
        DecathleteError: what a user can do something about.
    """
    module = SegmentationModule(task)
    if task.hardware.world == 1:  # several processes wait for one another while they start: a signal ends them
        module.stop_request.install()  # Lightning would end the process with another exit code
    fit_module(module, [StepReporter(progress), AdaptThreads(), EpochEnd(progress)], environment)
    return module.stop_request.signal_number


def fit_module(
    module: SegmentationModule, callbacks: list[pl.Callback], environment: ClusterEnvironment | None = None
) -> None:
    """Train ``module`` with Lightning and ``callbacks``.

    Raises:
        DecathleteError: what a user can do something about.
    """
    hardware = module.task.hardware
    processors = hardware.processors_of(environment)
    with warnings.catch_warnings(), restore_determinism(), pinned_to_cpus(processors):
        silence_lightning()
        try:
            trainer = make_trainer(module.task, callbacks, environment)
            with fast_kernels(torch.device(hardware.kind)):
                trainer.fit(module)
        except SIGTERMException:  # Lightning noticed SIGTERM before our handler was in its place; all is saved
            log.debug("stopped by Lightning's handler")
        except EndNow as request:
            raise ended_at_once(request, module.task) from None
        except Exception as problem:
            error = as_user_error(problem)
            if error is not None and module.finishing is not None:  # the stop itself succeeded
                log.warning("the stopped training has no model: %s", error)
                return
            if error is None or error is problem:
                raise
            raise error from problem


def make_trainer(
    task: TrainTask, callbacks: list[pl.Callback], environment: ClusterEnvironment | None = None
) -> pl.Trainer:
    """Make Lightning's trainer: it handles devices, precision and processes; our callbacks handle epochs and files."""
    hardware = task.hardware
    return pl.Trainer(
        accelerator=hardware.kind,
        devices=hardware.lightning_devices,
        num_nodes=hardware.nodes,
        strategy=hardware.strategy(environment),
        plugins=hardware.plugins,
        precision=hardware.lightning_precision,
        callbacks=callbacks,
        max_epochs=-1,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        deterministic="warn" if task.config.deterministic else None,
        default_root_dir=str(task.folder),
    )
