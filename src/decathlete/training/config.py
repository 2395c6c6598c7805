"""How a network is trained: every option with its default and its range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from decathlete.augmentation.config import AugmentationConfig
from decathlete.core.choices import (
    Affinity,
    Blend,
    Layout,
    LoaderName,
    LoggerName,
    OptimizerName,
    PrecisionChoice,
    ScheduleName,
    WandbMode,
)
from decathlete.core.schema import Schema, describe
from decathlete.errors import OptionError, problems_found
from decathlete.training.ineffective_options import find_ineffective_options

DEFAULT_EPOCHS = 1000
MIN_SLICES = 20
LONGEST_SLICE_S = 300.0

LEARNING_RATES: dict[OptimizerName, float] = {"adamw": 5e-3, "adam": 1e-3, "sgd": 1e-1}
WEIGHT_DECAYS: dict[OptimizerName, float] = {"adamw": 1e-4, "adam": 1e-4, "sgd": 3e-5}
GRADIENT_CLIPS: dict[OptimizerName, float] = {"adamw": 1.0, "adam": 1.0, "sgd": 12.0}

# What may change between a run and its resumption without changing the weights it ends with (on one machine).
FREE_ON_RESUME = frozenset(
    {"readers", "prefetch", "loggers", "wandb_mode", "save_every_s", "val_batch_size", "affinity"}
)


class TrainConfig(Schema):
    """Every choice about training that is not in the plan.

    Attributes:
        epochs: passes of ``steps_per_epoch`` steps; ``DEFAULT_EPOCHS`` when ``max_time_s`` is not given either.
        max_time_s: seconds for everything inside ``train``; schedules follow the time, epochs become slices of it.
        steps_per_epoch: optimizer steps of an epoch (with ``epochs``).
        batch_size: patches per device and step, in place of the plan's; ``None``: the plan's.
        learning_rate: peak; ``None``: 5e-3 for AdamW, 1e-3 for Adam, 1e-1 for SGD (Nesterov).
        weight_decay: ``None``: 1e-4 for Adam(W), 3e-5 for SGD.
        warmup: share of the training over which the learning rate rises to its peak, 0..0.5 (not with ``none``).
        restarts: ``cosine``: how often the rate goes back to its peak on the way.
        steps: ``multistep``: epochs at which the rate is multiplied by ``factor``; below 1: shares of the training.
        factor: of ``multistep`` and ``plateau``.
        lr_patience: ``plateau``: validations without a better (smoothed) Dice that are waited out.
        ema_decay: of the averaged weights, at most; shorter windows apply early and in short runs; 0: no averaging.
        gradient_clip: greatest gradient norm; ``None``: 1 for Adam(W), 12 for SGD; 0: no clipping.
        loss: what is added to the Dice; ``focal`` plays down voxels that are easy.
        batch_dice: one Dice over all patches of the global batch rather than one per patch.
        precision: ``auto`` is bf16 where the device has it in hardware, else fp32 (on CUDA TF32); ``fp16`` scales the
            loss (CUDA).
        layout: how feature maps lie in memory, in the steps and in the validations; ``auto``: channels last on
            CPUs, first elsewhere.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        deterministic: repeat bit for bit on CUDA too, slower (a CPU does so anyway).
        devices: processes on this machine, one per GPU or several on a CPU; the global batch grows with them.
        compile: the network by torch's compiler: the first step takes a minute or more, the others less time.
        affinity: processors of each GPU's process; ``None``: ``socket_unique_interleaved`` for several GPUs (but not
            in SLURM jobs), else ``disabled``.
        seed: of weights, patches and augmentation.
        sync_batchnorm: batch norms take mean and variance over the patches of all processes.
        patience: validations without a better (smoothed) Dice before training stops; ``None``: never.
        min_epochs: that ``patience`` does not shorten (slices of the time with ``max_time_s``).
        oversampling: share of each batch's patches that are centred on foreground.
        nvol: 2D: volumes that a batch's slices come from, equally many each; ``None``: each slice from its own.
        augmentation: ``None``: the defaults for the plan's dimensions; with the loader ``dali``, the recipe's.
        val_every: epochs between validations (with ``epochs``).
        skip_first: epochs at the start that are not validated; the last one always is.
        val_cases: at most so many held-out cases are swept each time: the same ones, chosen evenly.
        val_overlap, val_blend: of the sliding window in these validations.
        loader: what brings the batches: ``threads`` cut them, to be augmented on the training device; with ``dali``
            they are augmented by NVIDIA DALI.
        readers: threads that cut patches. prefetch: batches they may be ahead.
        save_every_s: seconds between checkpoints inside long epochs.
        loggers: where curves go beside ``logs.json``; ``None``: TensorBoard, if it is installed; ``()``: nowhere.
        wandb_mode: ``offline`` leaves what ``wandb`` logs in the run's folder.
        mlflow_uri: of the tracking store; ``None``: a file in the run's folder. It may hold a password and is therefore
            never written anywhere.
    """

    epochs: int | None = Field(default=None, ge=1)
    max_time_s: float | None = Field(default=None, gt=0)
    steps_per_epoch: int = Field(default=250, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    optimizer: OptimizerName = "sgd"
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: ScheduleName = "cosine"
    warmup: float = Field(default=0.03, ge=0, le=0.5)
    restarts: int = Field(default=0, ge=0)
    steps: tuple[Annotated[float, Field(gt=0)], ...] = ()
    factor: float = Field(default=0.3, gt=0, lt=1)
    lr_patience: int = Field(default=70, ge=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    gradient_clip: float | None = Field(default=None, ge=0)
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    batch_dice: bool = True
    precision: PrecisionChoice = "auto"
    layout: Layout = "auto"
    deterministic: bool = False
    device: str = "auto"
    devices: int = Field(default=1, ge=1)
    nodes: int = Field(default=1, ge=1)
    compile: bool = False
    affinity: Affinity | None = None
    seed: int = 1
    sync_batchnorm: bool = False
    patience: int | None = Field(default=None, ge=1)
    min_epochs: int | None = Field(default=None, ge=1)
    oversampling: float = Field(default=0.33, ge=0, le=1)
    nvol: int | None = Field(default=None, ge=1)
    augmentation: AugmentationConfig | None = None
    val_every: int = Field(default=1, ge=1)
    skip_first: int = Field(default=0, ge=0)
    val_cases: int = Field(default=20, ge=0)
    val_overlap: float = Field(default=0.5, ge=0, lt=1)
    val_blend: Blend = "gaussian"
    val_batch_size: int = Field(default=4, ge=1)
    loader: LoaderName = "threads"
    readers: int = Field(default=2, ge=1)
    prefetch: int = Field(default=4, ge=1)
    save_every_s: float = Field(default=600.0, gt=0)
    loggers: tuple[LoggerName, ...] | None = None
    wandb_mode: WandbMode = "offline"
    mlflow_uri: str | None = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.epochs is not None and self.max_time_s is not None:
            raise ValueError("give epochs or max_time, not both: the schedule follows one of them")
        if self.patience is not None and self.val_cases == 0:
            raise ValueError("patience needs validations: val_cases must be 1 or more")
        if self.min_epochs is not None and self.patience is None:
            raise ValueError("min_epochs holds patience back: give patience too, or neither")
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        problems = []
        if (self.schedule == "multistep") != bool(self.steps):
            problems.append("steps and the schedule multistep belong together: give both or neither")
        if self.restarts and self.schedule != "cosine":
            problems.append("restarts are for the schedule cosine")
        if self.schedule == "plateau" and self.val_cases == 0:
            problems.append("the schedule plateau waits for validations: val_cases must be 1 or more")
        if self.timed and any(step >= 1 for step in self.steps):
            problems.append("with max_time give steps as shares of the training: 0.5,0.8")
        elif any(step >= self.n_epochs for step in self.steps):
            problems.append(f"steps from {self.n_epochs} on are never reached in {self.n_epochs} epochs")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @classmethod
    def make(
        cls,
        *,
        defaults: Mapping[str, Any] | None = None,
        dims: int | None = None,
        fold: int | Literal["all"] | None = None,
        **options: Any,
    ) -> Self:
        """From a user's options, none of which may be without effect; ``None`` is our default.

        Args:
            defaults: somebody else's, for what ``options`` leave open; they may be without effect.
            dims: of the model, where they are known.
            fold: that is to be trained, where it is known.

        Raises:
            OptionError: with every problem together.
        """
        given = {name: value for name, value in options.items() if value is not None}
        others = {name: value for name, value in (defaults or {}).items() if name not in options}
        try:
            config = cls(**others | given)
        except ValidationError as problem:
            problems = describe(problem)
        else:
            problems = list(find_ineffective_options(config, given, dims=dims, fold=fold))
        if problems:
            raise problems_found(problems, where="training options", remedy="mend these options", kind=OptionError)
        return config

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

    @property
    def drops(self) -> tuple[float, ...]:
        """``steps`` as shares of the training."""
        return tuple(step if step < 1 else step / self.n_epochs for step in self.steps)

    @property
    def peak_learning_rate(self) -> float:
        """``learning_rate``, or the optimizer's default."""
        return LEARNING_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate

    @property
    def decay(self) -> float:
        """``weight_decay``, or the optimizer's default."""
        return WEIGHT_DECAYS[self.optimizer] if self.weight_decay is None else self.weight_decay

    @property
    def clip(self) -> float:
        """``gradient_clip``, or the optimizer's default; 0: none."""
        return GRADIENT_CLIPS[self.optimizer] if self.gradient_clip is None else self.gradient_clip

    def differences(self, other: Self) -> list[str]:
        """What changes between two configs that would change the weights: ``"epochs: 2 -> 3"``."""
        mine, theirs = self.model_dump(), other.model_dump()
        return [f"{k}: {mine[k]} -> {theirs[k]}" for k in mine if k not in FREE_ON_RESUME and mine[k] != theirs[k]]
