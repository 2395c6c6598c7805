"""Advanced options of a training: schedule, regularisation, validation, loading and loggers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from decathlete.cli import options as o
from decathlete.cli.prediction_options import blend_option, overlap_option
from decathlete.cli.training_options import LENGTH, TRAINING, TrainArguments
from decathlete.core.choices import Affinity, Blend, WandbMode

RATE, VALIDATION, CURVES = "Learning-rate schedule", "Validation during training", "Loggers"


@dataclass(frozen=True, kw_only=True)
class FullTrainArguments(TrainArguments):
    """All options of a training."""

    warmup: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=0.5,
            rich_help_panel=RATE,
            help="Warm-up: share of the training in which the learning rate rises to its peak.",
        ),
    ] = 0.03
    restarts: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=RATE,
            help="Number of warm restarts of the cosine schedule.",
        ),
    ] = 0
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="EPOCH,...",
            rich_help_panel=RATE,
            help="Epochs at which the multistep schedule multiplies the rate by --factor: 100,200. Values "
            "below 1 are shares of the training: 0.5,0.8.",
        ),
    ] = None
    factor: Annotated[
        float,
        typer.Option(
            metavar="FACTOR", rich_help_panel=RATE, help="Factor of the multistep and plateau schedules, below 1."
        ),
    ] = 0.3
    lr_patience: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=RATE,
            help="Patience of the plateau schedule: validations without a better Dice.",
        ),
    ] = 70

    min_epochs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, rich_help_panel=LENGTH, help="Minimum number of epochs, with --patience."),
    ] = None

    momentum: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=0.9999,
            rich_help_panel=TRAINING,
            help="SGD momentum.",
        ),
    ] = 0.9
    weight_decay: Annotated[
        float | None,
        typer.Option(
            metavar="DECAY",
            min=0.0,
            show_default="adam(w) 1e-4, sgd 3e-5",
            rich_help_panel=TRAINING,
            help="Weight decay.",
        ),
    ] = None
    gradient_clip: Annotated[
        float | None,
        typer.Option(
            metavar="NORM",
            min=0.0,
            show_default="adam(w) 1, sgd 12",
            rich_help_panel=TRAINING,
            help="Maximum gradient norm; 0: no clipping.",
        ),
    ] = None
    focal: Annotated[
        bool,
        typer.Option(
            "--focal/--no-focal",
            rich_help_panel=TRAINING,
            help="Dice + focal loss; the same as --loss focal.",
        ),
    ] = False
    ema_decay: Annotated[
        float,
        typer.Option(
            metavar="DECAY",
            min=0.0,
            max=0.999999,
            rich_help_panel=TRAINING,
            help="Decay of the averaged weights (EMA), which are the model; 0: no averaging.",
        ),
    ] = 0.999
    sampler: Annotated[
        str, o.component_option("decathlete.loading.samplers", "Sampler, which chooses where patches are cut", TRAINING)
    ] = "foreground"
    oversampling: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            rich_help_panel=TRAINING,
            help="Share of the patches that are centred on foreground.",
        ),
    ] = 0.33
    nvol: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default="one per slice",
            rich_help_panel=TRAINING,
            help="Number of volumes that the slices of a 2D batch come from.",
        ),
    ] = None
    sync_batchnorm: Annotated[
        bool,
        typer.Option(
            "--sync-batchnorm/--no-sync-batchnorm",
            rich_help_panel=TRAINING,
            help="Synchronised batch norm over all devices, with --norm batch.",
        ),
    ] = False

    compile: o.Compile = False
    affinity: Annotated[
        Affinity | None,
        typer.Option(
            rich_help_panel=o.MACHINE,
            show_default="socket_unique_interleaved for several GPUs, else disabled",
            help="CPU affinity of each GPU's process.",
        ),
    ] = None

    val_every: Annotated[
        int,
        typer.Option(metavar="N", min=1, rich_help_panel=VALIDATION, help="Epochs between validations, with --epochs."),
    ] = 1
    skip_first: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, rich_help_panel=VALIDATION, help="Number of epochs at the start without validation."
        ),
    ] = 0
    val_cases: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=VALIDATION,
            help="Maximum number of held-out cases in each validation; 0: no validation.",
        ),
    ] = 20
    val_overlap: Annotated[float, overlap_option(VALIDATION)] = 0.5
    val_blend: Annotated[Blend, blend_option(VALIDATION)] = "gaussian"
    val_batch_size: Annotated[
        int,
        typer.Option(metavar="N", min=1, rich_help_panel=VALIDATION, help="Windows per batch; fewer need less memory."),
    ] = 4
    loader: Annotated[
        str,
        o.component_option(
            "decathlete.loading.loaders",
            "Input loader",
            o.MACHINE,
            note="NVIDIA DALI (extra dali) augments as the recipe does, without rotation, gamma and low resolution",
        ),
    ] = "threads"
    readers: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, rich_help_panel=o.MACHINE, help="Threads per device that read and cut patches."
        ),
    ] = 2

    logger: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            rich_help_panel=CURVES,
            show_default="tensorboard, if it is installed",
            help="Loggers of losses, Dice and learning rate: tensorboard, wandb, mlflow (several with "
            "commas); none: only logs.json.",
        ),
    ] = None
    wandb_mode: Annotated[
        WandbMode,
        typer.Option(
            rich_help_panel=CURVES,
            help="Weights & Biases: keep the files in the run's folder (offline; `wandb sync` uploads "
            "them), or upload at once (online).",
        ),
    ] = "offline"
    mlflow_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            rich_help_panel=CURVES,
            show_default="MLFLOW_TRACKING_URI; without it a file in the run's folder",
            help="Tracking URI of MLflow, e.g. sqlite:///mlflow.db or https://server.",
        ),
    ] = None

    def select(self, explicit: Mapping[str, Any]) -> dict[str, Any]:
        """Return the explicit options of the training, and the tracking URI of MLflow from the environment."""
        options = super().select(explicit)
        environment_uri = os.environ.get("MLFLOW_TRACKING_URI")
        if environment_uri and "mlflow" in (options.get("logger") or "") and options.get("mlflow_uri") is None:
            options["mlflow_uri"] = environment_uri
        return options
