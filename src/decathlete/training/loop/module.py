"""The Lightning module: a thin shell around the training step."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from decathlete.augmentation.batch import RawBatch
from decathlete.augmentation.pipeline import Augmenter
from decathlete.errors import DecathleteError
from decathlete.networks.build import build_network
from decathlete.networks.layout import apply_layout
from decathlete.networks.stages import freeze_stages
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.distributed import collectives as ranks
from decathlete.training.distributed.sync_batch_norm import convert_to_sync_batch_norm
from decathlete.training.loop.batches import device_augmenter
from decathlete.training.loop.checkpoint import CONTENT_ERRORS, damage_error, load_checkpoint, save_checkpoint
from decathlete.training.loop.epoch_batches import EpochBatches
from decathlete.training.loop.finishing import Finishing
from decathlete.training.loop.signals import StopRequest
from decathlete.training.loop.state import Clock, RunState
from decathlete.training.loop.step import Batch, clip_gradients, make_gradients, pack_loss_and_finite
from decathlete.training.loop.stop_criterion import StopCriterion, coarse_part, leave_coarse_grid, make_stop_criterion
from decathlete.training.loop.task import TrainTask
from decathlete.training.loop.validation import Validator
from decathlete.training.objective.deep_supervision import DeepSupervision
from decathlete.training.objective.ema import EMA, ema_decay
from decathlete.training.objective.losses import LOSSES, LossContext
from decathlete.training.objective.optimizer_steps import (
    build_optimizer,
    has_fused_unscaling,
    restore_optimizer,
    set_learning_rate,
)
from decathlete.training.pretrained import start_from_pretrained

log = logging.getLogger(__name__)

MOST_SKIPPED_IN_A_ROW = 100
_PARTS = ("state", "network", "ema", "optimizer", "scaler")
"""Entries of the last checkpoint."""


class SegmentationModule(pl.LightningModule):  # type: ignore[misc]
    """Network, loss, optimizer, averaged weights and state of one training.

    Batches arrive cut; they are augmented on the training device, outside autocast. Optimization is manual, so that
    all ranks can agree on skipping a step whose loss or gradient is not finite.

    Attributes:
        finishing: the last steps of a stopped training, once they have begun.
        has_usual_steps: whether the durations of steps say how long further ones take.
    """

    network: nn.Module
    ema: EMA
    augmenter: Augmenter
    clock: Clock

    def __init__(self, task: TrainTask) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task = task
        self.budget: StopCriterion = make_stop_criterion(task.config, coarse=coarse_part(task.plan))
        self.state = RunState(val_every=task.config.validation.every)
        self.stop_request = StopRequest(insist=task.hardware.world == 1)
        self.finishing: Finishing | None = None
        self.has_usual_steps = True
        self._ticked_s = 0.0
        loss = LOSSES.build(task.config.loss, LossContext(labels=task.plan.labels))
        self.loss = DeepSupervision(loss, heads=task.plan.network.heads)
        self.schedule = task.config.make_schedule()
        self._scale = 0.0  # of the loss, with loss scaling

    # What Lightning calls, in this order.

    def configure_model(self) -> None:
        """Build the network in the process that trains it."""
        task = self.task
        self.network = build_network(task.plan.network, seed=task.config.seed)
        if task.config.pretrained is not None:
            if task.last_checkpoint.is_file():  # it has the weights, and the model may be gone
                freeze_stages(self.network, task.config.freeze_stages)
            else:
                start_from_pretrained(self.network, task.plan, task.config)
        if task.config.sync_batchnorm:
            convert_to_sync_batch_norm(self.network)
        hardware = task.hardware
        device = torch.device(hardware.kind)
        apply_layout(self.network, task.config.layout, device=device, precision=hardware.precision)
        if task.config.compile:  # in place: the weights keep their names, and a copy (EMA) is not compiled
            self.network.compile(dynamic=False)
        self.augmenter = device_augmenter(task)

    def configure_optimizers(self) -> Optimizer:
        """Build the config's optimizer."""
        weights = [weight for weight in self.network.parameters() if weight.requires_grad]
        return build_optimizer(weights, self.task.config.optimizer)

    def train_dataloader(self) -> Iterable[RawBatch]:
        """Return the open epoch's batches."""
        return EpochBatches(self)

    def on_train_start(self) -> None:
        """Restore the last checkpoint, if there is one, and install signal handlers in place of Lightning's."""
        self.ema = EMA(self.network)
        carried_s = 0.0
        if self.task.last_checkpoint.is_file():
            self._restore(load_checkpoint(self.task.last_checkpoint, parts=_PARTS))
            carried_s = self.state.elapsed_s
        if self._scaler is not None:
            self._scale = self._scaler.get_scale()
        self.clock = Clock(self.task.started, carried_s=carried_s, clock=self.task.clock)
        if self.trainer.received_sigterm:
            self.stop_request.signal_number = signal.SIGTERM
        self.stop_request.install()

    def on_train_epoch_start(self) -> None:
        """Start timing the next step."""
        self.restart_step_time()

    def transfer_batch_to_device(self, batch: RawBatch, device: torch.device, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Augment a batch on the device."""
        image_BC, label_B = self.augmenter(batch, device)
        return image_BC, label_B

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Make one step: forward, backward, agreement of the ranks, update, average."""
        set_learning_rate(self.optimizer, self.learning_rate)
        loss = self._agree(self._backward(batch))
        made = loss is not None and self._update()
        self.state.count_step(loss if made else None)
        if made:
            self._average()
        elif self.state.skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise DecathleteError(
                f"the loss or its gradient was not finite in {MOST_SKIPPED_IN_A_ROW} steps in a row: "
                "training has diverged",
                where=self.task.folder,
                remedy="train with a lower --learning-rate, or with --precision fp32",
                code="E-TRAINING-DIVERGED",
            )
        if self.finishing is None:
            self.state.progress = self.budget.progress(self.state)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip gradients here with loss scaling, after unscaling them."""
        scaler = self._scaler
        if scaler is None:
            return
        if has_fused_unscaling(optimizer):  # in its step, after this
            scaler.unscale_(optimizer)
        clip_gradients(optimizer, self.task.config.optimizer.gradient_clip)

    # The parts of a step.

    @property
    def learning_rate(self) -> float:
        """The learning rate at the present progress."""
        if self.finishing is not None:
            return self.finishing.rate(self.state)
        config, state = self.task.config, self.state
        factor = self.schedule.factor(state.progress, n_epochs=config.n_epochs, plateau_factor=state.plateau_factor)
        return config.optimizer.learning_rate * factor

    @property
    def _stepper(self) -> LightningOptimizer:
        """The optimizer as Lightning wraps it, to step with precision and strategy."""
        return cast(LightningOptimizer, self.optimizers())

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer itself."""
        return cast(Optimizer, self._stepper.optimizer)

    def _backward(self, batch: Batch) -> Tensor:
        return make_gradients(self.network, self.loss, self.optimizer, batch, backward=self.manual_backward)

    def _agree(self, loss: Tensor) -> float | None:
        """Return the loss if it is finite on all ranks; elapsed time and stop requests use the same call."""
        norm = (
            clip_gradients(self.optimizer, self.task.config.optimizer.gradient_clip) if self._scaler is None else None
        )
        packed = pack_loss_and_finite(loss, norm)
        value, finite = packed.tolist()  # waits for the device: the time taken below is the step's
        now_s = self.clock.elapsed()
        local = (1.0 - finite, now_s, now_s - self._ticked_s, float(self.stop_request.signal_number))
        bad, elapsed_s, step_s, number = ranks.all_reduce_max(local, self.device)
        self._ticked_s = now_s
        self.state.time_step(elapsed_s=elapsed_s, step_s=step_s if self.has_usual_steps else self.state.step_s)
        self.state.stopped_by = int(number) if self.finishing is None else 0
        return None if bad else float(value)

    def _update(self) -> bool:
        """Step the optimizer; return whether it did (a loss scaler skips when a scaled gradient overflows)."""
        scaler = self._scaler
        if scaler is None:
            self._stepper.step()
            return True
        self._stepper.step()
        before, self._scale = self._scale, scaler.get_scale()  # waits for the device
        return self._scale >= before

    def _average(self) -> None:
        state, limit = self.state, self.task.config.ema_decay
        if self.finishing is not None:
            decay = self.finishing.average_decay(state, limit=limit)
        else:
            decay = ema_decay(state.step, progress=self.budget.progress(state), limit=limit)
        self.ema.update(self.network, decay)

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def choose_grid(self) -> None:
        """Choose the grid of an epoch that begins; an epoch that was begun before a resumption keeps its grid."""
        coarse, state = coarse_part(self.task.plan), self.state
        if coarse is None or state.steps_in_epoch or self.finishing is not None:
            return
        if state.choose_grid(coarse.share, n_epochs=self.task.config.n_epochs):
            leave_coarse_grid(state, self.budget, coarse, most=self.task.most_val_cases)
            if ranks.rank() == 0:
                log.info("the coarse start is over: the training continues on the plan's own grid")

    def restart_step_time(self) -> None:
        """Time the next step from now on: what came before it is no part of a usual step."""
        self._ticked_s = self.clock.elapsed()

    def validator(self, *, coarse: bool) -> Validator:
        """Make the validator of held-out cases, with this training's precision, loss and device.

        Args:
            coarse: validate on the coarse grid on which the training begins.
        """
        task = self.task
        return Validator(
            PreparedStore.open(task.store_of(coarse=coarse)),
            task.plan,
            self.loss,
            window=task.config.validation.window,
            precision=task.hardware.precision,
            layout=task.config.layout,
            device=self.device,
        )

    # Checkpoints.

    def save(self) -> None:
        """Write the last checkpoint (on the first rank)."""
        began = self.clock.elapsed()
        if ranks.rank() == 0:
            scaler = self._scaler
            content = {
                "state": self.state.to_dict(),
                "network": self.network.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else {},
            }
            save_checkpoint(self.task.last_checkpoint, content)
        (self.state.save_cost_s,) = ranks.all_reduce_max([self.clock.elapsed() - began], self.device)

    def start_finishing(self) -> None:
        """Begin the last steps of a stopped training, once it was saved, if enough steps were made for a model."""
        state = self.state
        self.finishing = Finishing.make(state, self.task.config, learning_rate=self.learning_rate)
        if self.finishing is not None:
            state.stopped_by = 0
            state.elapsed_s = self.finishing.began_s

    def save_stopped(self) -> None:
        """Write the averaged weights of a stopped training (on the first rank)."""
        finishing = self.finishing
        if ranks.rank() == 0 and finishing is not None:
            content = {
                "state": self.state.to_dict(),
                "ema": self.ema.state_dict(),
                "stopped_at": finishing.stopped_at,
            }
            save_checkpoint(self.task.stopped_checkpoint, content)

    def _restore(self, content: dict[str, Any]) -> None:
        try:
            self._restore_parts(content)
        except CONTENT_ERRORS as problem:
            raise damage_error(self.task.last_checkpoint, problem) from problem

    def _restore_parts(self, content: dict[str, Any]) -> None:
        self.network.load_state_dict(content["network"])
        self.ema.load_state_dict(content["ema"])
        restore_optimizer(self.optimizer, content["optimizer"])
        if self._scaler is not None and content["scaler"]:
            self._scaler.load_state_dict(content["scaler"])
        self.state = RunState.from_dict(content["state"])
        self.state.outcome, self.state.stopped_by = "running", 0
