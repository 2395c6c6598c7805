"""The training configuration: every choice with its default and its range."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from decathlete.augmentation.config import AugmentationConfig
from decathlete.core.choices import Affinity, Layout, PrecisionChoice
from decathlete.core.component_field import ComponentField
from decathlete.core.registry import ComponentSettings
from decathlete.core.schema import Schema, describe
from decathlete.core.sliding_window import SlidingWindow
from decathlete.errors import OptionError, problems_found
from decathlete.loading.loaders import LOADERS
from decathlete.loading.samplers import SAMPLERS
from decathlete.training.fine_tuning import with_fine_tuning_defaults
from decathlete.training.ineffective_options import find_ineffective_options
from decathlete.training.objective.losses import LOSSES
from decathlete.training.objective.optimizers import OPTIMIZERS, OptimizerSettings
from decathlete.training.objective.schedules import SCHEDULES, Schedule
from decathlete.training.reporting.loggers import LOGGERS
from decathlete.training.short_forms import (
    SHORT_FORMS,
    drop_ineffective,
    load_components,
    nest,
    paths_of,
    why_ineffective,
)

DEFAULT_EPOCHS = 1000
MIN_SLICES = 20
LONGEST_SLICE_S = 300.0

FREE_ON_RESUME = frozenset({"loggers", "save_every_s", "affinity", "validation.window.batch_size"})
"""Fields that a resumed run may change without changing the weights that it ends with (on one machine); components
have theirs in ``free_on_resume``."""

LossSettings = Annotated[ComponentSettings, ComponentField(LOSSES)]
AnyOptimizerSettings = Annotated[OptimizerSettings, ComponentField(OPTIMIZERS)]
ScheduleSettings = Annotated[ComponentSettings, ComponentField(SCHEDULES)]
SamplerSettings = Annotated[ComponentSettings, ComponentField(SAMPLERS)]
LoaderSettings = Annotated[ComponentSettings, ComponentField(LOADERS)]
LoggerSettings = Annotated[ComponentSettings, ComponentField(LOGGERS)]


class ValidationConfig(Schema):
    """The validations during a training: held-out cases predicted by the averaged weights, on the prepared grid.

    Attributes:
        every: epochs between validations (with ``epochs``).
        skip_first: epochs at the start that are not validated; the last one always is.
        cases: number of held-out cases that are predicted each time, at most: the same ones, chosen evenly.
        window: the sliding window.
    """

    every: int = Field(default=1, ge=1)
    skip_first: int = Field(default=0, ge=0)
    cases: int = Field(default=20, ge=0)
    window: SlidingWindow = SlidingWindow(batch_size=4)

    @model_validator(mode="before")
    @classmethod
    def _window_of_four(cls, data: Any) -> Any:
        """Keep this window's default batch of 4 where other settings of the window are given."""
        if isinstance(data, Mapping) and isinstance(window := data.get("window"), Mapping):
            return {**data, "window": {"batch_size": 4, **window}}
        return data


class TrainConfig(Schema):
    """Every choice about training that is not in the plan.

    Components (loss, optimizer, schedule, sampler, loader, loggers) are given by name, or with their settings:
    ``loss={"name": "focal", "gamma": 1.5}``; ``decathlete components`` lists them. Settings that have a short form may
    be given by it: ``momentum=0.8`` (see :data:`~decathlete.training.short_forms.SHORT_FORMS`).

    Attributes:
        epochs: passes of ``steps_per_epoch`` steps; ``DEFAULT_EPOCHS`` when ``max_time_s`` is not given either.
        max_time_s: seconds for everything inside ``train``; schedules follow the time, epochs become slices of it.
        steps_per_epoch: optimizer steps of an epoch (with ``epochs``).
        patience: validations without a better (smoothed) Dice before training stops; ``None``: never.
        min_epochs: epochs that ``patience`` does not shorten (slices of the time with ``max_time_s``).
        batch_size: patches per device and step, in place of the plan's; ``None``: the plan's.
        loss: what is minimised.
        optimizer: how gradients change the weights; its ``learning_rate`` is the peak.
        schedule: how the learning rate changes with progress.
        ema_decay: decay of the averaged weights, at most; shorter windows apply early and in short runs; 0: no
            averaging.
        sampler: where patches are cut.
        augmentation: transforms and their settings, or a policy (``"none"``, ``"light"``, ``"standard"``,
            ``"heavy"``); ``None``: the loader's defaults for the plan's dimensions.
        loader: provides the batches.
        loggers: where curves go beside ``logs.json``; ``None``: TensorBoard, if it is installed; ``()``: nowhere.
        validation: of held-out cases during the training.
        pretrained: folder of a trained model whose weights the training starts from; ``None``: random weights. The
            defaults of ``learning_rate`` and ``warmup`` are then a tenth of the optimizer's and 0.1.
        freeze_stages: number of the encoder's first stages whose weights are not trained.
        seed: seed of weights, patches and augmentation, a 64-bit integer.
        save_every_s: seconds between checkpoints inside long epochs.
        precision: ``auto`` is bf16 where the device has it in hardware, else fp32 (on CUDA TF32); ``fp16`` scales the
            loss (CUDA).
        layout: memory layout of feature maps, in steps and validations; ``auto``: channels last on CPUs, channels
            first elsewhere.
        deterministic: repeat bit for bit on CUDA too, slower (a CPU does so anyway).
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        devices: processes on this machine, one per GPU or several on a CPU; the global batch grows with them.
        nodes: machines that train together.
        compile: compile the network by ``torch.compile``: the first step takes a minute or more, the others less time.
        affinity: processors of each GPU's process; ``None``: ``socket_unique_interleaved`` for several GPUs (but not
            in SLURM jobs), else ``disabled``.
        sync_batchnorm: batch norms take mean and variance over the patches of all processes.
    """

    epochs: int | None = Field(default=None, ge=1)
    max_time_s: float | None = Field(default=None, gt=0)
    steps_per_epoch: int = Field(default=250, ge=1)
    patience: int | None = Field(default=None, ge=1)
    min_epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    loss: LossSettings = Field(default="cross_entropy", validate_default=True)
    optimizer: AnyOptimizerSettings = Field(default="sgd", validate_default=True)
    schedule: ScheduleSettings = Field(default="cosine", validate_default=True)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    sampler: SamplerSettings = Field(default="foreground", validate_default=True)
    augmentation: AugmentationConfig | None = None
    loader: LoaderSettings = Field(default="threads", validate_default=True)
    loggers: tuple[LoggerSettings, ...] | None = None
    validation: ValidationConfig = ValidationConfig()
    pretrained: str | None = Field(default=None, exclude_if=lambda folder: folder is None)
    freeze_stages: int = Field(default=0, ge=0, exclude_if=lambda n: n == 0)
    seed: int = Field(default=1, ge=-(2**63), lt=2**63)
    save_every_s: float = Field(default=600.0, gt=0)
    precision: PrecisionChoice = "auto"
    layout: Layout = "auto"
    deterministic: bool = False
    device: str = "auto"
    devices: int = Field(default=1, ge=1)
    nodes: int = Field(default=1, ge=1)
    compile: bool = False
    affinity: Affinity | None = None
    sync_batchnorm: bool = False

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        return with_fine_tuning_defaults(nest(data)) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        if self.epochs is not None and self.max_time_s is not None:
            yield "set epochs or max_time, not both: the schedule follows one of them"
        if self.patience is not None and self.validation.cases == 0:
            yield "patience needs validations: val_cases must be 1 or more"
        if self.min_epochs is not None and self.patience is None:
            yield "min_epochs limits patience: set patience too, or neither"
        if self.freeze_stages and self.pretrained is None:
            yield "freeze_stages keeps the weights of a pretrained model: set pretrained too, or neither"
        schedule = self.make_schedule()
        yield from schedule.problems(n_epochs=self.n_epochs, timed=self.timed)
        if schedule.plateau is not None and self.validation.cases == 0:
            yield f"the schedule {self.schedule.component} waits for validations: val_cases must be 1 or more"

    @classmethod
    def make(
        cls,
        *,
        defaults: Mapping[str, Any] | None = None,
        dims: int | None = None,
        fold: int | Literal["all"] | None = None,
        **options: Any,
    ) -> Self:
        """Make a config from a user's options and reject those without effect; ``None`` means the default.

        Args:
            defaults: values, for example a preset's, for what ``options`` leave open; they may be without effect.
            dims: spatial axes of the model, where they are known.
            fold: the held-out fold, if it is known.
            options: fields, short forms, dotted names (``loss.gamma``); a component also as ``module:Class``, which is
                imported.

        Raises:
            OptionError: with every problem together.
        """
        given = load_components({name: value for name, value in options.items() if value is not None})
        set_paths = {*options, *paths_of(given)}
        others = {
            name: value
            for name, value in (defaults or {}).items()
            if not {name, SHORT_FORMS.get(name, name)} & set_paths
        }
        effective = drop_ineffective(others | given)
        problems = [why_ineffective(name, others | given) for name in given if name not in effective]
        try:
            config = cls(**nest(effective, replaceable=others.keys()))
        except ValidationError as problem:
            problems += describe(problem)
        except ValueError as problem:  # what cannot be nested
            problems.append(str(problem))
        else:
            problems += find_ineffective_options(config, given, dims=dims, fold=fold)
        if problems:
            raise problems_found(problems, where="training options", remedy="fix these options", kind=OptionError)
        return config

    def revised(self, **changes: object) -> Self:
        """Return a validated copy with some fields replaced; a short form or dotted name replaces one setting.

        >>> TrainConfig(epochs=2).revised(momentum=0.8).optimizer.to_config()["momentum"]
        0.8
        """
        fields = dict(self)
        return type(self).model_validate(nest(fields | changes, replaceable=fields.keys()))

    def make_schedule(self) -> Schedule:
        """Build the learning-rate schedule."""
        return SCHEDULES.build(self.schedule)

    @property
    def timed(self) -> bool:
        """Whether time, not epochs, is the budget."""
        return self.max_time_s is not None

    @property
    def n_epochs(self) -> int:
        """Epochs, or slices of the time."""
        if self.max_time_s is not None:
            return max(MIN_SLICES, math.ceil(self.max_time_s / LONGEST_SLICE_S))
        return self.epochs or DEFAULT_EPOCHS

    @property
    def total_steps(self) -> int | None:
        """Optimizer steps of the whole training; ``None`` when time decides."""
        return None if self.timed else self.n_epochs * self.steps_per_epoch

    def differences(self, other: Self) -> list[str]:
        """List the differences between two configs that change the weights: ``"epochs: 2 -> 3"``."""
        first, second = self._flat(), other._flat()
        names = [*first, *(name for name in second if name not in first)]
        return [f"{n}: {first.get(n)} -> {second.get(n)}" for n in names if first.get(n) != second.get(n)]

    def _flat(self) -> dict[str, Any]:
        """Return dotted name -> value of every choice that changes the weights."""
        flat = dict(_leaves(self.model_dump(mode="json")))
        free = set(FREE_ON_RESUME)
        for name in type(self).model_fields:
            if isinstance(value := getattr(self, name), ComponentSettings):
                free |= {f"{name}.{setting}" for setting in value.free_on_resume}
        return {n: v for n, v in flat.items() if n not in free and n.partition(".")[0] not in free}


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted name and value of each leaf; a component's name is the value of its field: ``loss``."""
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _leaves(item, f"{prefix}{name}.")
        else:
            yield (prefix.rstrip(".") if name == "name" else prefix + name), item
