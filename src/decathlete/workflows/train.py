"""Train one fold of a prepared dataset, with the plan adapted to the machine and the time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from decathlete.augmentation.config import AugmentationConfig
from decathlete.core.choices import PresetName
from decathlete.core.durations import parse_duration
from decathlete.errors import OptionError
from decathlete.networks.precision import cpu_arithmetic, supported_precision
from decathlete.planning.architectures import architecture_of
from decathlete.planning.compute_budget import ComputeBudget, adapt_plan, usable_threads
from decathlete.planning.network_spec import Dims
from decathlete.planning.overrides import override, with_batch_size
from decathlete.planning.plan import Plan
from decathlete.planning.presets import load_preset
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.config import TrainConfig
from decathlete.training.distributed.devices import choose_device, choose_precision
from decathlete.training.reporting.progress import Progress
from decathlete.training.run import TrainResult, train
from decathlete.training.run_folder import record_in
from decathlete.workflows.workspace import FoldName, Workspace

log = logging.getLogger(__name__)


def train_task(
    task: str | Path,
    *,
    dims: Dims = 3,
    fold: FoldName = 0,
    workspace: Workspace = Workspace(),
    config: TrainConfig = TrainConfig(),
    overrides: tuple[str, ...] = (),
    adapt: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TrainResult:
    """Train one fold; the result's folder holds the model, its logs and checkpoints.

    Args:
        overrides: ``field=value`` assignments onto the plan; only fields that do not change how the data were
            prepared.
        adapt: narrow the network and the batch for a CPU or a short training time.
        resume: continue a stopped run, with the plan that it was started with.
        clock: returns the current time, seconds; a time limit is measured with it.

    Raises:
        StoreError: the dataset has not been prepared.
        OutputError: the folder holds another run, and neither ``resume`` nor ``overwrite`` is given.
    """
    store = PreparedStore.open(workspace.prepared_folder(task, dims))
    folder = workspace.run_folder(task, dims, fold)
    plan = plan_of_run(folder, store, overrides=overrides) if resume and adapt else None
    plan = plan or adapted_plan(store, config, adapt=adapt, overrides=overrides)
    if "budget" in plan.reasons:
        log.info(
            "the plan is adapted to the machine and the time: patch %s, batch %d, %s channels at full resolution; %s",
            plan.patch_size,
            plan.batch_size,
            architecture_of(plan.network).width,
            plan.reasons["budget"],
        )
    return train(
        store,
        fold,
        folder,
        config,
        plan=plan,
        resume=resume,
        overwrite=overwrite,
        dataset_root=workspace.dataset(task).resolve(),
        progress=progress,
        clock=clock,
    )


def adapted_plan(store: PreparedStore, config: TrainConfig, *, adapt: bool, overrides: tuple[str, ...] = ()) -> Plan:
    """Return the store's plan with the user's assignments, adapted to the device and the time.

    Raises:
        OptionError: an override does not fit, or contradicts the config's batch size.
    """
    refuse_two_batch_sizes(config, overrides)
    plan = override(with_batch_size(store.plan, config.batch_size), overrides)
    if adapt:
        adapted = adapt_plan(plan, _budget(config, plan))
        plan = override(adapted, overrides)  # again: what the user sets is applied last
    return _mirroring_as(plan, config.augmentation)


def _budget(config: TrainConfig, plan: Plan) -> ComputeBudget:
    device = choose_device(config.device)
    precision = choose_precision(config.precision, torch.device(device))
    precision = supported_precision(precision, plan.network, requested=config.precision)
    shared = config.devices if device == "cpu" else 1  # processes that share the processors
    return ComputeBudget(
        device=device,
        max_time_s=config.max_time_s,
        threads=max(1, usable_threads() // shared),
        arithmetic=cpu_arithmetic(precision),
        steps=config.total_steps,
    )


def _mirroring_as(plan: Plan, augmentation: AugmentationConfig | None) -> Plan:
    """Return ``plan`` with the axes along which the chosen augmentation mirrors."""
    if augmentation is None:
        return plan
    axes = augmentation.mirroring_within(plan.mirror_axes, plan.dims).mirror_axes(plan.dims)
    if axes == plan.mirrored_axes:
        return plan
    return plan.revised(mirror_axes=axes, reasons=plan.reasons | {"mirror_axes": "as the chosen augmentation has it"})


def refuse_two_batch_sizes(config: TrainConfig, overrides: tuple[str, ...]) -> None:
    """``--batch-size`` and ``--set batch_size`` say the same thing; whoever gives both must give one number.

    Raises:
        OptionError: they differ.
    """
    assigned = [
        value.strip()
        for name, _, value in (text.partition("=") for text in overrides)
        if name.strip().replace("-", "_") == "batch_size"
    ]
    if config.batch_size is not None and assigned and assigned[-1] != str(config.batch_size):
        raise OptionError(
            f"--batch-size {config.batch_size} and --set batch_size={assigned[-1]} contradict each other",
            remedy="give one of them",
        )


def plan_of_run(folder: Path, store: PreparedStore, *, overrides: tuple[str, ...] = ()) -> Plan | None:
    """Return the plan of the run in ``folder``, if the prepared data still have the plan that it was adapted from.

    On a machine with another number of processors the adapted plan would be another one, and the run could not resume.

    Raises:
        OptionError: an override does not fit.
        OutputError: the run's record is damaged.
    """
    record = record_in(folder)
    if record is None or record.plan is None or record.store_plan_digest != store.plan.digest:
        return None
    return override(record.plan, overrides)


def train_config(
    *,
    max_time: str | None = None,
    augment: bool | None = None,
    steps: str | None = None,
    focal: bool | None = None,
    logger: str | None = None,
    preset: PresetName | None = None,
    dims: Dims | None = None,
    fold: FoldName | None = None,
    **fields: Any,
) -> TrainConfig:
    """A :class:`TrainConfig` from options as a user writes them; what does nothing beside the others is refused.

    Args:
        max_time: a duration with units (``20m``).
        augment: ``False`` switches every augmentation off.
        steps: numbers with commas between them (``100,200``).
        focal: the focal loss in place of the cross entropy.
        logger: names with commas between them (``tensorboard,wandb``), or ``none``.
        preset: whose defaults stand for what is not given, its augmentation included.
        dims: of the model; a preset needs them.
        fold: that is to be trained; on ``"all"`` nothing is validated.
        fields: fields of :class:`TrainConfig`; ``None``: our default, not the preset's.

    Raises:
        OptionError: with every problem together.
    """
    if max_time is not None:
        fields["max_time_s"] = parse_duration(max_time)
    if steps is not None:
        fields["steps"] = _parts(steps)
    if focal is not None:
        fields["loss"] = "focal" if focal else "cross_entropy"
    if logger is not None:
        names = tuple(dict.fromkeys(_parts(logger)))
        fields["loggers"] = () if names == ("none",) else names
    if augment is False:
        fields["augmentation"] = AugmentationConfig.none()
    defaults = {} if preset is None else _preset_defaults(preset, dims or 3, fields)
    return TrainConfig.make(defaults=defaults, dims=dims, fold=fold, **fields)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _preset_defaults(preset: PresetName, dims: Dims, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's training, without what contradicts ``fields``."""
    values = load_preset(preset)
    defaults = {**values.train, "augmentation": AugmentationConfig.recipe(dims)}
    if dims == 2:
        defaults["nvol"] = values.nvol_2d
    if fields.get("max_time_s") is not None:
        defaults.pop("epochs", None)
    if "patience" in fields and fields["patience"] is None:
        defaults.pop("min_epochs", None)
    return defaults
