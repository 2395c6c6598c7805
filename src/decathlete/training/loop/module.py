"""The thin shell around the training step: Lightning moves it between devices and processes and calls it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

from decathlete.augmentation.batch import RawBatch
from decathlete.augmentation.pipeline import Augmenter
from decathlete.core.sliding_window import SlidingWindow
from decathlete.errors import DecathleteError
from decathlete.networks.build import build_network
from decathlete.networks.layout import memory_format
from decathlete.networks.unet import UNet
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.distributed import collectives as ranks
from decathlete.training.distributed.sync_batch_norm import convert_to_sync_batch_norm
from decathlete.training.loop.batches import UNENDING, device_augmenter, make_loader
from decathlete.training.loop.checkpoint import load_checkpoint, save_checkpoint
from decathlete.training.loop.signals import StopRequest
from decathlete.training.loop.state import Clock, RunState
from decathlete.training.loop.step import Batch, clip_gradients, make_gradients, pack_loss_and_finite
from decathlete.training.loop.stop_criterion import StopCriterion, make_stop_criterion
from decathlete.training.loop.task import TrainTask
from decathlete.training.loop.validation import Validator
from decathlete.training.objective.ema import EMA
from decathlete.training.objective.losses import SegmentationLoss
from decathlete.training.objective.optimizers import (
    build_optimizer,
    restore_optimizer,
    set_learning_rate,
    unscales_itself,
)
from decathlete.training.objective.schedules import ema_decay, learning_rate

MOST_SKIPPED_IN_A_ROW = 100


class SegmentationModule(pl.LightningModule):  # type: ignore[misc]
    """Network, loss, optimizer and averaged weights of one training, and where it is (``state``).

    Batches arrive cut; they are augmented on the training device, outside autocast. Optimization is manual, so that
    all ranks can agree on skipping a step whose loss or gradient is not finite.
    """

    network: UNet
    ema: EMA
    augmenter: Augmenter
    clock: Clock

    def __init__(self, task: TrainTask) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.task = task
        self.budget: StopCriterion = make_stop_criterion(task.config)
        self.state = RunState(val_every=task.config.val_every)
        self.stop_request = StopRequest(insist=task.hardware.world == 1)
        self._ticked_s = 0.0
        self.loss = SegmentationLoss(
            task.plan.labels,
            heads=task.plan.network.heads,
            batch_dice=task.config.batch_dice,
            term=task.config.loss,
        )

    # What Lightning calls, in this order.

    def configure_model(self) -> None:
        """Build the network in the process that trains it."""
        task = self.task
        self.network = build_network(task.plan.network, seed=task.config.seed)
        if task.config.sync_batchnorm:
            convert_to_sync_batch_norm(self.network)
        hardware = task.hardware
        device = torch.device(hardware.kind)
        self.network.set_layout(memory_format(task.config.layout, device, task.plan.dims, hardware.precision))
        if task.config.compile:  # in place: the weights keep their names, and a copy (EMA) is not compiled
            self.network.compile(dynamic=False)
        self.augmenter = device_augmenter(task)

    def configure_optimizers(self) -> Optimizer:
        """The config's optimizer."""
        return build_optimizer(self.network.parameters(), self.task.config)

    def train_dataloader(self) -> Iterable[RawBatch]:
        """The open epoch's batches."""
        return EpochBatches(self)

    def on_train_start(self) -> None:
        """Go on from the last checkpoint, if there is one, and watch for signals in place of Lightning's handlers."""
        self.ema = EMA(self.network)
        carried_s = 0.0
        if self.task.last_checkpoint.is_file():
            self._restore(load_checkpoint(self.task.last_checkpoint))
            carried_s = self.state.elapsed_s
        self.clock = Clock(self.task.started, carried_s=carried_s)
        if self.trainer.received_sigterm:
            self.stop_request.signal_number = signal.SIGTERM
        self.stop_request.install()

    def on_train_epoch_start(self) -> None:
        """The next step's duration counts from here."""
        self._ticked_s = self.clock.elapsed()

    def transfer_batch_to_device(self, batch: RawBatch, device: torch.device, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Cut patches to augmented tensors on the device."""
        image_BC, label_B = self.augmenter(batch, device)
        return image_BC, label_B

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """One step: forward, backward, agreement, weights, average."""
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
            )
        self.state.progress = self.budget.progress(self.state)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """With loss scaling, gradients are clipped here, where they are unscaled."""
        scaler = self._scaler
        if scaler is None:
            return
        if unscales_itself(optimizer):  # in its step, after this
            scaler.unscale_(optimizer)
        clip_gradients(optimizer, self.task.config.clip)

    # The parts of a step.

    @property
    def learning_rate(self) -> float:
        """At the present progress."""
        config = self.task.config
        return learning_rate(
            self.state.progress,
            peak=config.peak_learning_rate,
            schedule=config.schedule,
            warmup=config.warmup,
            restarts=config.restarts,
            drops=config.drops,
            factor=config.factor,
            lowered=self.state.lowered,
        )

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
        """The loss, if the step is finite on all ranks; time and requests to stop are agreed on in the same call."""
        norm = clip_gradients(self.optimizer, self.task.config.clip) if self._scaler is None else None
        value, finite = pack_loss_and_finite(
            loss, norm
        ).tolist()  # waits for the device: the time taken below is the step's
        now_s = self.clock.elapsed()
        local = (1.0 - finite, now_s, now_s - self._ticked_s, float(self.stop_request.signal_number))
        bad, elapsed_s, step_s, number = ranks.all_reduce_max(local, self.device)
        self._ticked_s = now_s
        self.state.time_step(elapsed_s=elapsed_s, step_s=step_s)
        self.state.stopped_by = int(number)
        return None if bad else float(value)

    def _update(self) -> bool:
        """Step the optimizer; whether it did (a loss scaler skips where a scaled gradient overflowed)."""
        scaler = self._scaler
        if scaler is None:
            self._stepper.step()
            return True
        before = scaler.get_scale()
        self._stepper.step()
        return bool(scaler.get_scale() >= before)

    def _average(self) -> None:
        state, limit = self.state, self.task.config.ema_decay
        progress = self.budget.progress(state)
        self.ema.update(self.network, ema_decay(state.step, progress=progress, limit=limit))

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def validator(self) -> Validator:
        """What sweeps held-out cases with this training's precision and loss, on its device."""
        task = self.task
        return Validator(
            PreparedStore.open(task.store),
            task.plan,
            lambda logits_BK, label_B: self.loss(logits_BK, label_B).total,
            window=SlidingWindow(
                overlap=task.config.val_overlap,
                blend=task.config.val_blend,
                batch_size=task.config.val_batch_size,
            ),
            precision=task.hardware.precision,
            layout=task.config.layout,
            device=self.device,
        )

    # Checkpoints.

    def save(self) -> None:
        """Write the last checkpoint (on the first rank)."""
        began = time.monotonic()
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
        (self.state.save_cost_s,) = ranks.all_reduce_max([time.monotonic() - began], self.device)

    def _restore(self, content: dict[str, Any]) -> None:
        self.network.load_state_dict(content["network"])
        self.ema.load_state_dict(content["ema"])
        restore_optimizer(self.optimizer, content["optimizer"])
        if self._scaler is not None and content["scaler"]:
            self._scaler.load_state_dict(content["scaler"])
        self.state = RunState.from_dict(content["state"])
        self.state.outcome, self.state.stopped_by = "running", 0


class EpochBatches:
    """The open epoch's batches: each ``iter`` goes on where the last left, until the budget ends the epoch.

    It declares an unending length, for without one Lightning would fetch a batch ahead and lose it at the end.
    """

    def __init__(self, module: SegmentationModule) -> None:
        self._module = module
        self._batches: Iterator[RawBatch] | None = None

    def __len__(self) -> int:
        return UNENDING

    def __iter__(self) -> Iterator[RawBatch]:
        module = self._module
        while not self._paused():
            if self._batches is None:
                self._batches = iter(make_loader(module.task, module.device, first_step=module.state.step))
            yield next(self._batches)
        if module.state.stopped_by or module.budget.finished(module.state):
            self._batches = None  # no more are wanted: ends the readers

    def _paused(self) -> bool:
        budget, state = self._module.budget, self._module.state
        return bool(self._module.state.stopped_by) or budget.finished(state) or budget.epoch_over(state)
