"""Trains one fold of a prepared dataset, with a plan adapted to the machine and the training time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from decathlete.augmentation.config import AugmentationConfig
from decathlete.core.choices import Configuration, PresetName
from decathlete.core.durations import parse_duration
from decathlete.core.locks import reading
from decathlete.core.output_paths import check_output_folder
from decathlete.dataset.split_cases import describe_untrained
from decathlete.errors import OptionError
from decathlete.planning.adaptation import adapt_plan
from decathlete.planning.architectures import architecture_of
from decathlete.planning.compute_budget import describe_machine, describe_time, step_seconds
from decathlete.planning.network_spec import Dims
from decathlete.planning.overrides import override, with_batch_size
from decathlete.planning.plan import Plan
from decathlete.planning.presets import load_preset
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.config import TrainConfig
from decathlete.training.fine_tuning import FINE_TUNED_SETTINGS
from decathlete.training.pretrained import network_replacement
from decathlete.training.reporting.progress import TrainingProgress
from decathlete.training.results import TrainResult
from decathlete.training.run import train as train_on_store
from decathlete.training.run_folder import record_in
from decathlete.workflows.budget import compute_budget
from decathlete.workflows.cascade import find_first_stage
from decathlete.workflows.workspace import FoldName, Workspace

log = logging.getLogger(__name__)

LONG_TRAINING_S = 12 * 3600.0
"""Estimated seconds from which a training without a time limit is announced as long."""


def train(
    task: str | Path,
    *,
    dims: Dims = 3,
    configuration: Configuration | None = None,
    fold: FoldName = 0,
    workspace: Workspace = Workspace(),
    config: TrainConfig = TrainConfig(),
    overrides: tuple[str, ...] = (),
    adapt: bool = True,
    plan_time_s: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: TrainingProgress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> TrainResult:
    """Train one fold. The folder of the result contains the model, its logs and checkpoints.

    Args:
        task: dataset: number, folder name or path.
        dims: dimensions of the model.
        configuration: name of the configuration, instead of ``dims``.
        fold: held-out fold, or ``"all"``.
        workspace: folders of data, prepared data and results.
        config: settings of the training.
        overrides: ``field=value`` assignments for the plan; only fields that do not change the prepared data.
        adapt: adapt the plan to a CPU or a short training: narrower network, smaller batch and patch.
        plan_time_s: training time that the plan is adapted to, seconds; ``None``: that of ``config``. Folds that train
            for different times have the same plan with it.
        resume: resume a stopped run with its own plan.
        overwrite: replace another run in the folder.
        progress: receives steps and epochs.
        clock: returns the current time, seconds, for the training time.

    Raises:
        StoreError: the dataset is not prepared.
        OutputError: the folder contains another run, and neither ``resume`` nor ``overwrite`` is set; or another
            process works in it, or it cannot be written.
    """
    which = configuration or dims
    folder = check_output_folder(workspace.run_folder(task, which, fold))
    with reading(workspace.prepared_folder(task, which)):
        store = PreparedStore.open(workspace.prepared_folder(task, which))
        _warn_of_untrained_classes(store, fold)
        plan = load_run_plan(folder, store, overrides=overrides) if resume and adapt else None
        planned = config if plan_time_s is None else config.revised(max_time_s=plan_time_s)
        plan = plan or make_training_plan(
            store.plan, planned, n_cases=len(store.case_ids), adapt=adapt, overrides=overrides
        )
        _log_changed_plan(plan, store.plan)
        if overwrite or record_in(folder) is None:
            _warn_of_long_training(plan, config)
        previous_stage: tuple[Path, ...] = ()
        if plan.previous_stage is not None:
            previous_stage = find_first_stage(workspace, task, plan, store.splits, store.case_ids).models_for(fold)
        return train_on_store(
            store,
            fold,
            folder,
            config,
            plan=plan,
            resume=resume,
            overwrite=overwrite,
            dataset_root=workspace.dataset(task).resolve(),
            previous_stage=previous_stage,
            progress=progress,
            clock=clock,
        )


def _log_changed_plan(plan: Plan, prepared: Plan) -> None:
    """Log the patch, batch and network of a training if they are not those of the prepared data's plan."""
    if all(getattr(plan, field) == getattr(prepared, field) for field in ("patch_size", "batch_size", "network")):
        return
    reason = plan.reasons.get("budget")
    log.info(
        "the plan is adapted to this training: patch %s, batch %d, features %s%s",
        plan.patch_size,
        plan.batch_size,
        architecture_of(plan.network).width,
        f"; {reason}" if reason else "",
    )


def _warn_of_long_training(plan: Plan, config: TrainConfig) -> None:
    """Log a warning if a training on a CPU without a time limit will take very long."""
    budget = compute_budget(config, plan.network)
    if budget.steps is None or budget.device != "cpu":
        return
    estimated_s = budget.steps * step_seconds(plan.network, plan.patch_size, plan.batch_size, budget=budget)
    if estimated_s > LONG_TRAINING_S:
        log.warning(
            "%d epochs of %d steps take an estimated %s on %s; --max-time plans a training for the time that you have",
            config.n_epochs,
            config.steps_per_epoch,
            describe_time(estimated_s),
            describe_machine(budget),
        )


def _warn_of_untrained_classes(store: PreparedStore, fold: FoldName) -> None:
    if fold == "all" or not 0 <= fold < len(store.splits.folds):  # a fold that does not exist is rejected later
        return
    untrained = describe_untrained(fold, store.splits.fold(fold), store.fingerprint.presence(store.plan.labels))
    if untrained is not None:
        log.warning("%s", untrained)


def make_training_plan(
    prepared: Plan,
    config: TrainConfig,
    *,
    n_cases: int,
    adapt: bool,
    overrides: tuple[str, ...] = (),
    warn: bool = True,
) -> Plan:
    """Return the plan of a training on prepared data: overridden, with the network that is trained, and adapted.

    The network is that of the model to start from, if there is one. Patch, batch and mirroring are adapted for it to
    the device and the training time.

    Args:
        n_cases: number of cases of the dataset, held-out ones among them.
        warn: log a warning if only a few steps fit.

    Raises:
        OptionError: an override is not valid, or contradicts the batch size in ``config`` or the network.
        ModelError: the model to start from has no network of this kind.
    """
    check_batch_size(config, overrides)
    plan = override(with_batch_size(prepared, config.batch_size), overrides)
    # again after each step, because overrides take precedence
    plan = override(network_replacement(config, plan)(plan), overrides)
    if adapt:
        budget = compute_budget(config, plan.network)
        plan = override(adapt_plan(plan, budget, n_cases=n_cases, warn=warn), overrides)
    return _set_mirror_axes(plan, config.augmentation)


def _set_mirror_axes(plan: Plan, augmentation: AugmentationConfig | None) -> Plan:
    """Set the mirror axes of the plan to the mirror axes of the augmentation."""
    if augmentation is None:
        return plan
    axes = augmentation.mirroring_within(plan.mirror_axes, plan.dims).mirror_axes(plan.dims)
    if axes == plan.mirrored_axes:
        return plan
    return plan.revised(mirror_axes=axes, reasons=plan.reasons | {"mirror_axes": "set by the augmentation"})


def check_batch_size(config: TrainConfig, overrides: tuple[str, ...]) -> None:
    """Check that ``--batch-size`` and ``--set batch_size`` are equal if both are set.

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
            remedy="use one of them",
        )


def load_run_plan(folder: Path, store: PreparedStore, *, overrides: tuple[str, ...] = ()) -> Plan | None:
    """Return the plan of the run in ``folder`` if the plan of the prepared data has not changed, else ``None``.

    A resumed run needs its own plan: on a machine with another number of processors, the plan would be adapted
    differently. Only the codes of structures are those of the prepared data, which may have got new ones.

    Raises:
        OptionError: an override is not valid.
        OutputError: the record of the run is damaged.
    """
    record = record_in(folder)
    if record is None or record.plan is None or record.store_plan_digest != store.plan.digest:
        return None
    return override(record.plan, overrides).with_codes(store.plan.structure_codes)


def train_config(
    *,
    max_time: str | None = None,
    augment: bool | None = None,
    steps: str | None = None,
    focal: bool | None = None,
    logger: str | None = None,
    preset: PresetName | None = None,
    pretrained: str | Path | None = None,
    dims: Dims | None = None,
    fold: FoldName | None = None,
    **fields: Any,
) -> TrainConfig:
    """Make a :class:`TrainConfig` from options as a user writes them. Options without effect are rejected.

    Args:
        max_time: training time with units (``20m``).
        augment: ``False`` disables all augmentation.
        steps: epochs of the multistep schedule, separated by commas (``100,200``).
        focal: focal loss instead of cross entropy.
        logger: names separated by commas (``tensorboard,wandb``), or ``none``.
        preset: source of defaults for options that are not set, including the augmentation.
        pretrained: folder of a trained model to start from. The defaults of the learning rate and the warm-up are then
            those of :class:`TrainConfig` for it, also with a preset.
        dims: dimensions of the model; a preset needs them.
        fold: held-out fold; with ``"all"`` there is no validation.
        fields: fields of :class:`TrainConfig`; ``None``: the field's own default, also with a preset.

    Raises:
        OptionError: options are wrong or contradict each other; the message lists all problems.
    """
    if max_time is not None:
        fields["max_time_s"] = parse_duration(max_time)
    if steps is not None:
        fields["steps"] = _split(steps)
    if focal is not None:
        if fields.get("loss") is not None:
            raise OptionError("focal and loss both choose the loss", remedy="leave out --focal or --loss")
        fields["loss"] = "focal" if focal else "cross_entropy"
    if logger is not None:
        names = tuple(dict.fromkeys(_split(logger)))
        fields["loggers"] = () if names == ("none",) else names
    if augment is False:
        if any(name.partition(".")[0] == "augmentation" for name in fields):
            raise OptionError(
                "--no-augment disables what is set in augmentation",
                remedy="leave out --no-augment, or the settings of the augmentation",
                code="E-OPTION-CONFLICT",
            )
        fields["augmentation"] = AugmentationConfig.none()
    defaults = {} if preset is None else _preset_defaults(preset, dims or 3, fields)
    if pretrained is not None:
        fields["pretrained"] = str(Path(pretrained).resolve())
        defaults = {name: value for name, value in defaults.items() if name not in FINE_TUNED_SETTINGS}
    return TrainConfig.make(defaults=defaults, dims=dims, fold=fold, **fields)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _preset_defaults(preset: PresetName, dims: Dims, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the training settings of a preset that do not contradict ``fields``."""
    values = load_preset(preset)
    defaults = dict(values.train)
    if not {"augmentation", "augmentation.policy"} & fields.keys():
        defaults["augmentation"] = AugmentationConfig.recipe(dims)
    if dims == 2:
        defaults["nvol"] = values.nvol_2d
    if fields.get("max_time_s") is not None:
        defaults.pop("epochs", None)
    if "patience" in fields and fields["patience"] is None:
        defaults.pop("min_epochs", None)
    return defaults
