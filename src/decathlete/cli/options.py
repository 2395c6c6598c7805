"""The options that several commands share, each said once; those that go together are in ``groups``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from decathlete.cli.config_file import take_config, take_preset
from decathlete.core.choices import Blend as BlendName
from decathlete.core.choices import Layout as LayoutName
from decathlete.core.choices import PrecisionChoice, PresetName
from decathlete.errors import OptionError

PLACES, MACHINE, PREDICTION, SPLIT = "Where things lie", "Machine", "Prediction", "Split"
REGIONS = "Overlapping regions"
"""Sections of ``--help``; an option without one stands under Options."""

Dim = Literal["2", "3"]


def overlap(section: str) -> Any:
    """Of sliding windows: those of a prediction, or of the validations while training."""
    return typer.Option(
        metavar="SHARE",
        min=0.0,
        max=0.95,
        rich_help_panel=section,
        help="Overlap of neighbouring windows, share of the patch.",
    )


def blend(section: str) -> Any:
    """Likewise."""
    return typer.Option(
        rich_help_panel=section, help="How overlapping windows are weighted: most in their middle, or alike."
    )


def regions(help_: str, *, default: str | bool) -> Any:
    """``--regions``, whose syntax is the same wherever it stands."""
    return typer.Option(
        "--regions", metavar="NAME=VALUES;...", rich_help_panel=REGIONS, show_default=default, help=help_
    )


def brats(help_: str, *, default: str | bool) -> Any:
    """``--brats``, or ``--no-brats``."""
    return typer.Option("--brats/--no-brats", rich_help_panel=REGIONS, show_default=default, help=help_)


Task = Annotated[str, typer.Option("--task", help="Dataset: its number (04) or folder name under --data, or a path.")]
Dataset = Annotated[str, typer.Argument(help="A folder with dataset.json, or its name or number under --data.")]
Dims = Annotated[Dim, typer.Option("--dim", help="A model of slices (2) or of volumes (3).")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=take_config,
        help="Take options from a YAML or JSON file; those on the command line win.",
    ),
]
"""Every command has it (``grouped``)."""
Preset = Annotated[
    PresetName | None,
    typer.Option(
        "--preset",
        is_eager=True,
        callback=take_preset,
        help="Take the defaults of another program: recipe is NVIDIA's nnU-Net for PyTorch of 2021.",
    ),
]
Fold = Annotated[
    str | None,
    typer.Option(
        "--fold",
        metavar="FOLD",
        show_default="0",
        help="The fold that is held out, from 0; or all: train on every case, without scores.",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite/--no-overwrite", help="Replace results of other inputs or settings.")
]
AsJson = Annotated[bool, typer.Option("--json/--no-json", help="Print the result as JSON, for machines.")]
Model = Annotated[
    Path, typer.Option("--model", metavar="DIR", help="A run's folder (results/.../fold_0), or the model folder in it.")
]
RawDataset = Annotated[
    Path | None,
    typer.Option("--dataset", metavar="DIR", show_default="where it was", help="The raw dataset, if it has moved."),
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="REGEX",
        rich_help_panel=SPLIT,
        show_default="from the names",
        help="How a patient is named in a case's name: '^(P\\d+)_'. One patient's cases are never split.",
    ),
]
Regions = Annotated[
    str | None,
    regions(
        "Overlapping regions instead of classes: 'whole tumour=1,2,3;core=2,3'.",
        default="dataset.json's, if it declares any",
    ),
]
RegionsOrder = Annotated[
    str | None,
    typer.Option(
        "--regions-order",
        metavar="VALUES",
        rich_help_panel=REGIONS,
        show_default="derived",
        help="The label value that each region is written with, outer ones first: 1,2.",
    ),
]
Brats = Annotated[
    bool,
    brats("Take whole tumour, core and enhancing tumour as regions, found by the names of the labels.", default=True),
]
Tolerance = Annotated[
    float,
    typer.Option(
        "--tolerance",
        metavar="MM",
        min=0.001,
        help="Surfaces so far apart still agree, for the normalised surface Dice, mm.",
    ),
]

Data = Annotated[
    Path,
    typer.Option("--data", metavar="DIR", rich_help_panel=PLACES, help="Root of the raw datasets (never written to)."),
]
Prepared = Annotated[
    Path,
    typer.Option("--prepared", metavar="DIR", rich_help_panel=PLACES, help="Root of plans and prepared data."),
]
Results = Annotated[
    Path,
    typer.Option("--results", metavar="DIR", rich_help_panel=PLACES, help="Root of models, scores and reports."),
]

Workers = Annotated[
    int, typer.Option("--workers", metavar="N", min=1, rich_help_panel=MACHINE, help="Cases worked on at once.")
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        rich_help_panel=MACHINE,
        help="Where to compute: auto, cpu, cuda, cuda:1 (one GPU) or mps.",
    ),
]
Devices = Annotated[
    int,
    typer.Option(
        "--devices", metavar="N", min=1, rich_help_panel=MACHINE, help="Use so many GPUs, or processes on a CPU."
    ),
]
Precision = Annotated[
    PrecisionChoice,
    typer.Option(
        "--precision",
        rich_help_panel=MACHINE,
        help="Numbers to compute with; auto: bf16 where the hardware has it, else fp32.",
    ),
]
Layout = Annotated[
    LayoutName,
    typer.Option(
        "--layout",
        rich_help_panel=MACHINE,
        help="Feature maps in memory; results differ by rounding alone. auto: channels last for 3D in fp32 on CPUs, "
        "first elsewhere.",
    ),
]

Compile = Annotated[
    bool,
    typer.Option(
        "--compile/--no-compile",
        rich_help_panel=MACHINE,
        help="Compile the network that is trained: a slow first step, then faster ones, on GPUs above all.",
    ),
]

Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        rich_help_panel=MACHINE,
        help="Inference engine: auto, {names:decathlete.inference.engines:ENGINES}, or module:Class. auto: openvino on "
        "a CPU where it is installed, else torch.",
    ),
]

Tta = Annotated[
    bool,
    typer.Option(
        "--tta/--no-tta",
        rich_help_panel=PREDICTION,
        help="Average over the flips that training used (short trainings: none); up to 8 times slower.",
    ),
]
Overlap = Annotated[float, overlap(PREDICTION)]
Blend = Annotated[BlendName, blend(PREDICTION)]
SumsMemory = Annotated[
    float | None,
    typer.Option(
        "--memory",
        metavar="GB",
        min=0.5,
        show_default="2 GB for sums of logits",
        rich_help_panel=PREDICTION,
        help="Memory that the prediction may fill on a CPU; sums beyond it are written to the output folder.",
    ),
]
Windows = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        min=1,
        show_default="the plan's; few on a CPU",
        rich_help_panel=PREDICTION,
        help="Windows (2D: slices) computed together, of several images if they are small; fewer need less memory.",
    ),
]


def dims_of(dim: Dim) -> Literal[2, 3]:
    """The number behind ``--dim``."""
    return 2 if dim == "2" else 3


def numbers_of(text: str | None, *, flag: str) -> tuple[int, ...] | None:
    """The whole numbers behind ``128,128,128``; ``None`` where nothing is given.

    Raises:
        OptionError: something else.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise OptionError(f"{flag} {text!r} is not a list of whole numbers", remedy=f"write e.g. {flag} 128,128,128")
    return tuple(int(part) for part in parts)


def decimals_of(text: str | None, *, flag: str, example: str) -> tuple[float, ...] | None:
    """The numbers behind ``1,0.8,0.8``; ``None`` where nothing is given.

    Raises:
        OptionError: something else.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"{flag} {text!r} is not a list of numbers", remedy=f"write e.g. {flag} {example}") from None


def names_of(text: str | None) -> tuple[str, ...]:
    """The names behind ``liver,cancer``; none where nothing is given."""
    return tuple(name for part in (text or "").split(",") if (name := part.strip()))


def fold_of(text: str | None) -> int | Literal["all"]:
    """The fold behind ``--fold``; 0 where it is not given.

    Raises:
        OptionError: neither a number nor ``all``.
    """
    if text is None:
        return 0
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise OptionError(f"--fold {text!r} is not a fold", remedy="give a number from 0, or all")
    return int(text)
