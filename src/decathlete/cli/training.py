"""The finer options of a training; those that most users meet are in ``groups``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from decathlete.cli import options as o
from decathlete.cli.groups import LENGTH, TRAINING, TrainArguments
from decathlete.core.choices import Blend

RATE, VALIDATION = "Course of the learning rate", "Validation while training"


@dataclass(frozen=True, kw_only=True)
class FullTrainArguments(TrainArguments):
    """All that a user can say about the training."""

    warmup: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0.0, max=0.5, rich_help_panel=RATE, help="Share of the training in which it rises."
        ),
    ] = 0.03
    restarts: Annotated[
        int,
        typer.Option(metavar="N", min=0, rich_help_panel=RATE, help="cosine: go back to the peak so often on the way."),
    ] = 0
    steps: Annotated[
        str | None,
        typer.Option(
            metavar="EPOCH,...",
            rich_help_panel=RATE,
            help="multistep: epochs at which it is multiplied by --factor: 100,200. "
            "Below 1: shares of the training: 0.5,0.8.",
        ),
    ] = None
    factor: Annotated[
        float, typer.Option(metavar="FACTOR", rich_help_panel=RATE, help="Of multistep and plateau, below 1.")
    ] = 0.3
    lr_patience: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            rich_help_panel=RATE,
            help="plateau: validations without a better Dice that are waited out before it is lowered.",
        ),
    ] = 70

    min_epochs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, rich_help_panel=LENGTH, help="Epochs that --patience does not shorten."),
    ] = None

    momentum: Annotated[
        float, typer.Option(metavar="SHARE", min=0.0, max=0.9999, rich_help_panel=TRAINING, help="Of sgd.")
    ] = 0.99
    weight_decay: Annotated[
        float | None,
        typer.Option(
            metavar="DECAY",
            min=0.0,
            show_default="adam(w) 1e-4, sgd 3e-5",
            rich_help_panel=TRAINING,
            help="Of weights.",
        ),
    ] = None
    gradient_clip: Annotated[
        float | None,
        typer.Option(
            metavar="NORM",
            min=0.0,
            show_default="adam(w) 1, sgd 12",
            rich_help_panel=TRAINING,
            help="Greatest norm of the gradient; 0: no clipping.",
        ),
    ] = None
    focal: Annotated[
        bool,
        typer.Option("--focal/--no-focal", rich_help_panel=TRAINING, help="Focal loss in place of the cross entropy."),
    ] = False
    ema_decay: Annotated[
        float,
        typer.Option(
            metavar="DECAY", min=0.0, max=0.999999, rich_help_panel=TRAINING, help="Of the averaged weights; 0: none."
        ),
    ] = 0.999
    oversampling: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0.0, max=1.0, rich_help_panel=TRAINING, help="Of patches centred on foreground."
        ),
    ] = 0.33
    nvol: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default="one per slice",
            rich_help_panel=TRAINING,
            help="2D: volumes that a batch's slices come from, equally many each.",
        ),
    ] = None
    sync_batchnorm: Annotated[
        bool,
        typer.Option(
            "--sync-batchnorm/--no-sync-batchnorm",
            rich_help_panel=TRAINING,
            help="Batch norms over all devices' patches.",
        ),
    ] = False

    val_every: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, rich_help_panel=VALIDATION, help="Epochs from one to the next, with --epochs."
        ),
    ] = 1
    skip_first: Annotated[
        int, typer.Option(metavar="N", min=0, rich_help_panel=VALIDATION, help="Epochs at the start without any.")
    ] = 0
    val_cases: Annotated[
        int,
        typer.Option(metavar="N", min=0, rich_help_panel=VALIDATION, help="Held-out cases, at most; 0: no validation."),
    ] = 20
    val_overlap: Annotated[
        float, typer.Option(metavar="SHARE", min=0.0, max=0.95, rich_help_panel=VALIDATION, help="Of windows.")
    ] = 0.5
    val_blend: Annotated[Blend, typer.Option(rich_help_panel=VALIDATION, help="Weights of overlapping windows.")] = (
        "gaussian"
    )
    val_batch_size: Annotated[
        int, typer.Option(metavar="N", min=1, rich_help_panel=VALIDATION, help="Windows computed together.")
    ] = 4
    readers: Annotated[
        int, typer.Option(metavar="N", min=1, rich_help_panel=o.MACHINE, help="Threads that cut patches, per device.")
    ] = 2
