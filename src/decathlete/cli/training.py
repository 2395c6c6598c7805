"""The finer options of a training; those that most users meet are in ``groups``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from decathlete.cli.groups import TrainArguments

RATE = "Course of the learning rate"


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
