"""The options that several commands share, each said once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from decathlete.errors import OptionError

Task = Annotated[str, typer.Option("--task", help="Dataset: its number (04), its folder's name, or a path.")]
Dataset = Annotated[str, typer.Argument(help="Dataset: a folder with dataset.json, or a name or number under --data.")]
Data = Annotated[Path, typer.Option("--data", help="Root of the raw datasets (never written to).")]
Prepared = Annotated[Path, typer.Option("--prepared", help="Root of plans and prepared data.")]
Results = Annotated[Path, typer.Option("--results", help="Root of models, scores and reports.")]
Model = Annotated[Path, typer.Option("--model", help="A run folder (results/.../fold_0) or a model folder.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Cases worked on at once.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what other inputs or settings made.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a field of the plan: patch_size=40,56,40. May be given several times."),
]
GroupBy = Annotated[
    str | None,
    typer.Option("--group-by", help="Regular expression whose first group names a case's patient, for the split."),
]
Memory = Annotated[float, typer.Option("--memory", min=0.5, help="GPU memory that training may fill, GB.")]
MaxTime = Annotated[str | None, typer.Option("--max-time", help="Training time, validation included: 20m, 1h30m.")]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="Training length in epochs.")]
StepsPerEpoch = Annotated[int, typer.Option("--steps-per-epoch", min=1, help="Optimizer steps of an epoch.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random in training.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps.")]
Devices = Annotated[int, typer.Option("--devices", min=1, help="GPUs, or processes on a CPU.")]
Patience = Annotated[
    int | None, typer.Option("--patience", min=1, help="Stop after so many validations without a better Dice.")
]
Tta = Annotated[bool, typer.Option("--tta", help="Average over all flips that training used (2D 4x, 3D 8x the time).")]
Overlap = Annotated[float, typer.Option("--overlap", min=0.0, max=0.95, help="Overlap of windows, share of the patch.")]
Windows = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Windows (2D: slices) computed together; less needs less memory."),
]
Tolerance = Annotated[float, typer.Option("--tolerance", min=0.001, help="Of the normalised surface Dice, mm.")]


class Dim(StrEnum):
    """2D slices or 3D patches."""

    two = "2"
    three = "3"


class Orient(StrEnum):
    """The working orientation."""

    canonical = "canonical"
    stored = "stored"


class StepOrder(StrEnum):
    """The order of preprocessing's steps."""

    nnunet = "nnunet"
    recipe = "recipe"


class Block(StrEnum):
    """The encoder's blocks."""

    plain = "plain"
    residual = "residual"


class Norm(StrEnum):
    """The normalisation layers."""

    instance = "instance"
    batch = "batch"
    group = "group"


class Precision(StrEnum):
    """Arithmetic: auto takes bf16 where the device is made for it."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Blend(StrEnum):
    """The weights of overlapping windows."""

    gaussian = "gaussian"
    constant = "constant"


Dims = Annotated[Dim, typer.Option("--dim", help="Slices (2) or volumes (3).")]


def dims_of(dim: Dim) -> Literal[2, 3]:
    """The number behind ``--dim``."""
    return 2 if dim is Dim.two else 3


def fold_of(text: str) -> int | Literal["all"]:
    """The fold behind ``--fold``.

    Raises:
        OptionError: neither a number nor ``all``.
    """
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise OptionError(f"--fold {text!r} is not a fold", remedy="give a number from 0, or all")
    return int(text)
