"""The finer options of a training; those that most users meet are in ``groups``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from decathlete.cli import options as o
from decathlete.cli.shared_groups import LENGTH, TRAINING, TrainArguments
from decathlete.core.choices import Affinity, Blend, WandbMode

RATE, VALIDATION, CURVES = "Course of the learning rate", "Validation while training", "Curves"


@dataclass(frozen=True, kw_only=True)
class FullTrainArguments(TrainArguments):
    """All that a user can say about the training."""

    warmup: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=0.5,
            rich_help_panel=RATE,
            help="Share of the training in which the rate rises to --learning-rate.",
        ),
    ] = 0.03
    restarts: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=RATE,
            help="cosine: go back to --learning-rate so many times on the way.",
        ),
    ] = 0
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="EPOCH,...",
            rich_help_panel=RATE,
            help="multistep: epochs at which the rate is multiplied by --factor: 100,200. "
            "Below 1: shares of the training: 0.5,0.8.",
        ),
    ] = None
    factor: Annotated[
        float,
        typer.Option(
            metavar="FACTOR", rich_help_panel=RATE, help="multistep, plateau: multiply the rate by this, below 1."
        ),
    ] = 0.3
    lr_patience: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=RATE,
            help="plateau: lower the rate when more than so many validations brought no better Dice.",
        ),
    ] = 70

    min_epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, rich_help_panel=LENGTH, help="With --patience: train so many epochs at least."
        ),
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
            help="How strongly weights are drawn to 0 in each step.",
        ),
    ] = None
    gradient_clip: Annotated[
        float | None,
        typer.Option(
            metavar="NORM",
            min=0.0,
            show_default="adam(w) 1, sgd 12",
            rich_help_panel=TRAINING,
            help="Shorten gradients to this norm where they are longer; 0: never.",
        ),
    ] = None
    focal: Annotated[
        bool,
        typer.Option(
            "--focal/--no-focal",
            rich_help_panel=TRAINING,
            help="Focal loss beside the Dice in place of the cross entropy.",
        ),
    ] = False
    ema_decay: Annotated[
        float,
        typer.Option(
            metavar="DECAY",
            min=0.0,
            max=0.999999,
            rich_help_panel=TRAINING,
            help="Share of the past in the averaged weights, which are the model; 0: no averaging.",
        ),
    ] = 0.999
    sampler: Annotated[
        str, o.component("decathlete.loading.samplers", "Sampler, which chooses where patches are cut", TRAINING)
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
            help="2D: take a batch's slices from so many volumes, equally many each.",
        ),
    ] = None
    sync_batchnorm: Annotated[
        bool,
        typer.Option(
            "--sync-batchnorm/--no-sync-batchnorm",
            rich_help_panel=TRAINING,
            help="With --norm batch: normalise over the patches of all devices.",
        ),
    ] = False

    compile: o.Compile = False
    affinity: Annotated[
        Affinity | None,
        typer.Option(
            rich_help_panel=o.MACHINE,
            show_default="socket_unique_interleaved for several GPUs, else disabled",
            help="Processors of each GPU's process.",
        ),
    ] = None

    val_every: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, rich_help_panel=VALIDATION, help="Validate every so many epochs, with --epochs."
        ),
    ] = 1
    skip_first: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, rich_help_panel=VALIDATION, help="Do not validate in so many epochs at the start."
        ),
    ] = 0
    val_cases: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=VALIDATION,
            help="Predict so many held-out cases each time, at most; 0: no validation.",
        ),
    ] = 20
    val_overlap: Annotated[float, o.overlap(VALIDATION)] = 0.5
    val_blend: Annotated[Blend, o.blend(VALIDATION)] = "gaussian"
    val_batch_size: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, rich_help_panel=VALIDATION, help="Windows computed together; fewer need less memory."
        ),
    ] = 4
    loader: Annotated[
        str,
        o.component(
            "decathlete.loading.loaders",
            "Input loader",
            o.MACHINE,
            note="NVIDIA DALI (extra dali) augments as the recipe does, without rotation, gamma and low resolution",
        ),
    ] = "threads"
    readers: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, rich_help_panel=o.MACHINE, help="Threads that read and cut patches, for each device."
        ),
    ] = 2

    logger: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            rich_help_panel=CURVES,
            show_default="tensorboard, if it is installed",
            help="Write losses, Dice and learning rate also for tensorboard, wandb, mlflow (several: with commas); "
            "none: to logs.json alone.",
        ),
    ] = None
    wandb_mode: Annotated[
        WandbMode,
        typer.Option(
            rich_help_panel=CURVES,
            help="wandb: leave its files in the run's folder (`wandb sync` sends them later), or send them at once.",
        ),
    ] = "offline"
    mlflow_uri: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            rich_help_panel=CURVES,
            show_default="MLFLOW_TRACKING_URI; without it a file in the run's folder",
            help="mlflow: where it keeps its runs, e.g. sqlite:///mlflow.db or https://server.",
        ),
    ] = None

    def among(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """The same, and of the surroundings where MLflow keeps its runs."""
        options = super().among(said)
        surroundings = os.environ.get("MLFLOW_TRACKING_URI")
        if surroundings and "mlflow" in (options.get("logger") or "") and options.get("mlflow_uri") is None:
            options["mlflow_uri"] = surroundings
        return options
