"""Lightning callbacks: epochs are validated, recorded and saved."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl

from decathlete.training.distributed import collectives as ranks
from decathlete.training.loop.checkpoint import save_checkpoint
from decathlete.training.loop.module import SegmentationModule
from decathlete.training.loop.validation import CaseResult, Validation, Validator, choose_evenly
from decathlete.training.reporting.curves import Curves
from decathlete.training.reporting.progress import TrainingProgress
from decathlete.training.reporting.records import EpochRecord, write_logs

log = logging.getLogger(__name__)

__all__ = ["EpochEnd", "StepReporter", "TrainingProgress"]


class StepReporter(pl.Callback):  # type: ignore[misc]
    """Reports each step, and saves inside long epochs."""

    def __init__(self, progress: TrainingProgress) -> None:
        self._progress = progress
        self._saved_s = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:  # noqa: ARG002
        """Note when the training was last saved."""
        self._saved_s = pl_module.state.elapsed_s

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        if pl_module.finishing is not None:  # these steps are none of the training's, whose checkpoint is kept
            return
        state = pl_module.state
        if trainer.is_global_zero:
            self._progress.on_step(state.step, state.progress)
        if state.elapsed_s - self._saved_s >= pl_module.task.config.save_every_s:
            pl_module.save()
            self._saved_s = state.elapsed_s


class EpochEnd(pl.Callback):  # type: ignore[misc]
    """Closes epochs: validates the averaged weights, writes record, logs and checkpoints, decides whether to stop.

    A request to stop leaves the epoch open; the checkpoint then holds all that is needed to close it later. Some more
    steps then anneal the weights in memory, which become the model of the stopped run.
    """

    def __init__(self, progress: TrainingProgress) -> None:
        self._progress: list[TrainingProgress] = [progress]
        self._curves: Curves | None = None
        self._validators: dict[bool, Validator] = {}  # by whether they validate on the coarse grid
        self._told_of_slow_cases = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Open the loggers, once the module has been restored."""
        if trainer.is_global_zero and self._curves is None:
            self._curves = Curves(pl_module.task, pl_module.state)
            self._progress.append(self._curves)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Close the epoch, or save it open."""
        module: SegmentationModule = pl_module
        if module.finishing is not None:
            module.save_stopped()
            trainer.should_stop = True
            return
        state = module.state
        trained_s = module.clock.elapsed() - state.epoch_start_s
        finished = module.budget.finished(state)  # asked before validation, whose time is set aside for
        validation = None if module.state.stopped_by else self._validate(module)
        if module.state.stopped_by:
            (state.elapsed_s,) = ranks.all_reduce_max([module.clock.elapsed()], module.device)
            state.outcome = "interrupted"
        elif state.steps_in_epoch:
            self._close(module, validation, trained_s)
        if state.outcome == "running" and (finished or self._out_of_patience(module)):
            state.outcome = "complete"
        module.save()
        if state.outcome == "interrupted":
            self._start_finishing(module)
        trainer.should_stop = state.outcome != "running" and module.finishing is None

    @staticmethod
    def _start_finishing(module: SegmentationModule) -> None:
        if not module.task.hardware.can_finish:
            return
        module.start_finishing()
        if module.finishing is not None and ranks.rank() == 0:
            seconds = module.finishing.expected_s(module.state)
            log.warning("stopped and saved; finishing: %.0f s for a model (a second signal ends at once)", seconds)

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:  # noqa: ARG002
        """Close the loggers."""
        self._end_curves(pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        """Close the loggers."""
        self._end_curves(pl_module)

    def _end_curves(self, module: SegmentationModule) -> None:
        if self._curves is not None:
            self._curves.close(complete=module.state.outcome == "complete")

    def _close(self, module: SegmentationModule, validation: Validation | None, trained_s: float) -> None:
        state = module.state
        mean_dice = validation.mean_dice if validation and not state.coarse else None
        if state.update_best(mean_dice) and ranks.rank() == 0:
            content = {"ema": module.ema.state_dict(), "epoch": state.epoch, "mean_dice": state.best_dice}
            save_checkpoint(module.task.best_checkpoint, content)
        if module.schedule.plateau is not None and mean_dice is not None:
            factor, patience = module.schedule.plateau
            state.lower_on_plateau(factor=factor, patience=patience)
        loss, trained_s = self._means(module, trained_s)
        (elapsed_s,) = ranks.all_reduce_max([module.clock.elapsed()], module.device)
        record = EpochRecord(
            epoch=state.epoch,
            step=state.step,
            seconds=elapsed_s - state.epoch_start_s,
            elapsed=elapsed_s,
            train_loss=loss,
            val_loss=validation.loss if validation else None,
            learning_rate=module.optimizer.param_groups[0]["lr"],
            dice=validation.dice if validation else {},
            mean_dice=validation.mean_dice if validation else None,
            best_dice=state.best_dice,
            best_epoch=state.best_epoch,
            patches_per_second=state.steps_in_epoch * module.task.plan.batch_size * ranks.world_size() / trained_s,
            skipped_steps=state.skipped_in_epoch,
            coarse=state.coarse,
        )
        state.close_epoch(record, elapsed_s=elapsed_s)
        if ranks.rank() == 0:
            write_logs(module.task.folder, tuple(s.name for s in module.task.plan.labels.structures), state.history)
            for reporter in self._progress:
                reporter.on_epoch(record)

    @staticmethod
    def _means(module: SegmentationModule, trained_s: float) -> tuple[float, float]:
        loss_sum, count = ranks.all_reduce_sum([module.state.loss_sum, module.state.loss_count], module.device)
        (trained_s,) = ranks.all_reduce_max([max(trained_s, 1e-6)], module.device)
        return (loss_sum / count if count else float("nan")), trained_s

    def _validate(self, module: SegmentationModule) -> Validation | None:
        """Validate the averaged weights, if that is due; an interrupted validation sets ``module.state.stopped_by``."""
        state = module.state
        validator = self._validator(module)
        if validator is None or not state.steps_in_epoch or not module.budget.validation_due(state):
            return None
        if state.epoch < module.task.config.validation.skip_first and not module.budget.finished(state):
            return None
        is_planned = state.val_cases is not None
        first = None if is_planned else self._plan_validation(module, validator)
        if first is not None and state.val_cases == 1:
            return Validation.mean([first], validator.names, module.device)
        if not state.val_cases or not (is_planned or module.budget.validation_due(state)):
            return None
        began = module.clock.elapsed()
        chosen = choose_evenly(module.task.val_ids, state.val_cases)
        result = validator.run(module.ema.network, chosen, stop=module.stop_request.is_set)
        numbers = [module.clock.elapsed() - began, float(module.stop_request.signal_number)]
        state.val_cost_s, number = ranks.all_reduce_max(numbers, module.device)
        state.val_spent_s += state.val_cost_s
        if result is None:
            module.state.stopped_by = int(number)
        return result

    def _validator(self, module: SegmentationModule) -> Validator | None:
        """Return the validator of the open epoch's grid, made in the training process; ``None`` without validation."""
        task, coarse = module.task, module.state.coarse
        if not task.val_ids or not task.config.validation.cases:
            return None
        if coarse not in self._validators:
            self._validators[coarse] = module.validator(coarse=coarse)
        return self._validators[coarse]

    def _plan_validation(self, module: SegmentationModule, validator: Validator) -> CaseResult | None:
        """Choose how many cases are validated; with a time limit one case is validated for its time, and returned.

        If that would take too long, or a signal asks to stop (which sets ``module.state.stopped_by``), nothing is
        chosen, and a later epoch tries again.
        """
        state, task, first, seconds = module.state, module.task, None, 0.0
        if task.config.timed:
            case_id = choose_evenly(task.val_ids, 1)[0]
            step_s = state.step_s / 2 if state.step == 1 else state.step_s  # the first step prepares kernels
            expected_s = validator.expected_seconds(case_id, step_s=step_s)
            if not module.budget.may_time_validation(expected_s):
                if ranks.rank() == 0 and not self._told_of_slow_cases:
                    log.warning("no validation in this epoch: one held-out case would take about %.0f s", expected_s)
                self._told_of_slow_cases = True
                return None
            began = module.clock.elapsed()
            first = validator.case(module.ema.network, case_id, stop=module.stop_request.is_set)
            numbers = [module.clock.elapsed() - began, float(module.stop_request.signal_number)]
            seconds, number = ranks.all_reduce_max(numbers, module.device)
            state.val_spent_s += seconds
            if number:
                state.stopped_by = int(number)
                return None
        case_s = seconds / ranks.world_size()
        planned = module.budget.plan_validation(state, seconds_per_case=case_s, most=task.most_val_cases)
        state.val_cases, state.val_every = planned
        state.val_cost_s = seconds if state.val_cases == 1 else case_s * state.val_cases
        return first

    @staticmethod
    def _out_of_patience(module: SegmentationModule) -> bool:
        config, state = module.task.config, module.state
        if config.patience is None or state.epoch < (config.min_epochs or 0):
            return False
        return state.epochs_without_better >= config.patience
