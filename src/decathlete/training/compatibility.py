"""Reject settings of a training that do not fit the labels, the dimensions or the fold, before the training."""

from __future__ import annotations

from pathlib import Path

from decathlete.core.labels import LabelSet
from decathlete.errors import OptionError
from decathlete.loading.samplers import SAMPLERS
from decathlete.planning.network_spec import Dims
from decathlete.training.config import TrainConfig
from decathlete.training.objective.losses import LOSSES, LossContext


def check_validation(config: TrainConfig, *, has_validation: bool, where: Path) -> None:
    """Reject settings that wait for validations if there are none.

    Raises:
        OptionError: there are such settings.
    """
    is_patient = config.patience is not None
    if has_validation or not (is_patient or config.make_schedule().plateau is not None):
        return
    waiting = "patience" if is_patient else f"the schedule {config.schedule.component}"
    preset = " (if a preset sets it: `patience: null` in a --config file)" if is_patient else ""
    raise OptionError(
        f"{waiting} waits for validations, but no case is held out",
        where=where,
        remedy=f"train a numbered fold, or leave {waiting} out{preset}",
    )


def check_batch_norm(config: TrainConfig, *, has_batch_norm: bool = True) -> None:
    """Reject ``sync_batchnorm`` if there is nothing to synchronise.

    Raises:
        OptionError: the network has no batch norm, or there is a single device.
    """
    if not config.sync_batchnorm:
        return
    if not has_batch_norm:
        raise OptionError(
            "sync_batchnorm needs batch norm, which the network does not have",
            remedy="plan with --norm batch, or leave sync_batchnorm out",
        )
    if config.devices * config.nodes == 1:
        raise OptionError(
            "sync_batchnorm is for several devices, one is requested",
            remedy="leave sync_batchnorm out: one device's batch norms see the whole batch anyway",
        )


def check_loss(config: TrainConfig, labels: LabelSet, *, where: Path) -> None:
    """Reject a loss that does not fit the labels, for example one that cannot leave out classes.

    Raises:
        OptionError: its settings do not fit the classes, or it would punish classes that were not annotated.
    """
    loss = LOSSES.build(config.loss, LossContext(labels=labels))
    if labels.unannotated and not getattr(loss, "supports_partial_labels", False):
        fitting = [component.name for component in LOSSES if getattr(component.cls, "supports_partial_labels", False)]
        raise OptionError(
            f"the loss {config.loss.component} would punish classes that were not annotated in some cases",
            where=where,
            remedy=f"use one of the losses {', '.join(fitting)}, or leave partially annotated cases out",
            code="E-OPTION-CONFLICT",
        )


def check_sampler(config: TrainConfig, *, dims: Dims, batch_size: int | None) -> None:
    """Reject settings of the sampler that do not fit the dimensions or the batch.

    Args:
        batch_size: of one device; that of ``config`` takes precedence. ``None``: not planned yet.

    Raises:
        OptionError: there are such settings.
    """
    per_device = config.batch_size or batch_size
    batch = None if per_device is None else per_device * config.devices * config.nodes
    sampler = SAMPLERS.resolve(config.sampler.component).cls
    if problems := list(sampler.problems(config.sampler, dims=dims, global_batch=batch)):
        raise OptionError("; ".join(problems), remedy="change or leave out these settings of the sampler")
