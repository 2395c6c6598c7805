"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from decathlete.cli.component_name import ComponentName
from decathlete.cli.config_file import load_config_file
from decathlete.cli.precedence import apply_preset
from decathlete.core.choices import Configuration, PrecisionChoice, PresetName
from decathlete.core.choices import Layout as LayoutName

PLACES, MACHINE, SPLIT, SELECTION = "Folders", "Machine", "Split", "Selection"
REGIONS = "Overlapping regions"
PARTIAL = "Partially annotated cases"
"""Sections of ``--help``. An option without a section is listed under Options."""

Dim = Literal["2", "3"]


def import_plugins(names: list[str] | None) -> list[str] | None:
    """Import modules that register components: ``module``, or ``module:Class`` for one of its components.

    Raises:
        OptionError: a module cannot be imported, or the class is not a component.
    """
    if names:
        from decathlete.core.registry import import_components  # here: most commands need no plug-in

        for name in names:
            import_components(name)
    return names


def component_option(package: str, title: str, section: str, *, note: str = "") -> Any:
    """Return an option whose value is the name of a component; its help lists the built-in ones."""
    kind = ComponentName(package)
    more = f". {note}" if note else ""
    return typer.Option(
        parser=kind,
        metavar="NAME",
        rich_help_panel=section,
        help=f"{title}: {', '.join(kind.builtin)}; a plug-in's name or module:Class{more}.",
    )


def regions_option(help_: str, *, default: str | bool) -> Any:
    """Return the option ``--regions``. Its syntax is the same in all commands."""
    return typer.Option(
        "--regions", metavar="NAME=VALUES;...", rich_help_panel=REGIONS, show_default=default, help=help_
    )


def brats_option(help_: str, *, default: str | bool) -> Any:
    """Return the option ``--brats/--no-brats``."""
    return typer.Option("--brats/--no-brats", rich_help_panel=REGIONS, show_default=default, help=help_)


def spacing_option(default: str) -> Any:
    """Return the option ``--spacing``."""
    return typer.Option(
        "--spacing",
        metavar="Z,Y,X",
        show_default=default,
        help="Spacing of images whose files do not contain it, mm: 3,0.8,0.8 (slices, rows, columns). Images that "
        "contain their spacing keep it.",
    )


Task = Annotated[
    str,
    typer.Option("--task", metavar="DATASET", help="Dataset: its number (04) or folder name under --data, or a path."),
]
Dataset = Annotated[
    str, typer.Argument(help="Dataset: a folder with dataset.json, or its name or number under --data.")
]
OptionalDataset = Annotated[
    str | None,
    typer.Argument(
        help="Dataset: a folder with dataset.json, or its name or number under --data; with --images, its new name."
    ),
]
Dims = Annotated[Dim, typer.Option("--dim", help="Dimensions of the model: 2 (slices) or 3 (volumes).")]
ConfigurationName = Annotated[
    Configuration | None,
    typer.Option(
        "--configuration",
        show_default="2d or 3d, by --dim",
        help="Configuration: slices; volumes at full or low resolution; or a cascade of low and full resolution.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=load_config_file,
        help="YAML or JSON file with options. Options on the command line override it.",
    ),
]
"""Every command has this option (see ``expand_option_groups``)."""
Plugin = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="MODULE[:CLASS]",
        is_eager=True,
        callback=import_plugins,
        help="Python module with components, or one component as module:Class; imported before the command runs. "
        "Installed plug-ins do not need it. Can be repeated.",
    ),
]
"""Every command has this option (see ``expand_option_groups``)."""
Preset = Annotated[
    PresetName | None,
    typer.Option(
        "--preset",
        is_eager=True,
        callback=apply_preset,
        help="Defaults of another program: recipe is NVIDIA's nnU-Net for PyTorch (2021).",
    ),
]
Fold = Annotated[
    str | None,
    typer.Option(
        "--fold",
        metavar="FOLD",
        show_default="0",
        help="Fold that is held out, from 0; all: train on every case, without scores.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite/--no-overwrite", help="Replace existing results that were made with other inputs or settings."
    ),
]
AsJson = Annotated[bool, typer.Option("--json/--no-json", help="Print the result as JSON.")]
Model = Annotated[
    Path,
    typer.Option("--model", metavar="DIR", help="Folder of a run (results/.../fold_0), or the model folder in it."),
]
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="A run's folder, or the model folder in it.")]
RawDataset = Annotated[
    Path | None,
    typer.Option(
        "--dataset",
        metavar="DIR",
        show_default="its folder during training",
        help="Folder of the raw dataset, if it has moved.",
    ),
]
MaxMembers = Annotated[
    int,
    typer.Option(
        "--max-members",
        metavar="N",
        min=1,
        rich_help_panel=SELECTION,
        help="Maximum number of networks in the selected model; each adds its time to a prediction.",
    ),
]
NFolds = Annotated[int, typer.Option(metavar="N", min=2, rich_help_panel=SPLIT, help="Number of folds.")]
SplitSeed = Annotated[int, typer.Option(metavar="N", rich_help_panel=SPLIT, help="Seed of the random split.")]
SplitsFile = Annotated[
    Path | None,
    typer.Option(
        "--splits",
        metavar="FILE",
        rich_help_panel=SPLIT,
        show_default="splits_final.json in the dataset's folder, if it exists",
        help="List of folds instead of a random split, in the form of nnU-Net's splits_final.json.",
    ),
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="REGEX",
        rich_help_panel=SPLIT,
        show_default="guessed from the names",
        help=r"Regular expression that finds the patient in a case's name: '^(P\d+)_'. Cases of one "
        "patient stay in one fold.",
    ),
]
AnnotatedFile = Annotated[
    Path | None,
    typer.Option(
        "--annotated",
        metavar="FILE",
        rich_help_panel=PARTIAL,
        show_default="dataset.json's, or all classes",
        help="CSV file with the columns case and annotated (classes separated by semicolons), for cases in which not "
        "all classes were annotated.",
    ),
]
Spacing = Annotated[str | None, spacing_option("such files are errors")]
SpacingOfCalibration = Annotated[str | None, spacing_option("such files are errors; for --dataset, as in training")]
Regions = Annotated[
    str | None,
    regions_option(
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
        help="Label value that is written for each region, outer regions first: 1,2.",
    ),
]
Brats = Annotated[
    bool,
    brats_option(
        "BraTS regions: whole tumour, core and enhancing tumour, found by the names of the labels.", default=True
    ),
]
Data = Annotated[
    Path,
    typer.Option("--data", metavar="DIR", rich_help_panel=PLACES, help="Folder of the raw datasets (read only)."),
]
Prepared = Annotated[
    Path,
    typer.Option("--prepared", metavar="DIR", rich_help_panel=PLACES, help="Folder of plans and prepared data."),
]
Results = Annotated[
    Path,
    typer.Option("--results", metavar="DIR", rich_help_panel=PLACES, help="Folder of models, scores and reports."),
]

Workers = Annotated[
    int,
    typer.Option(
        "--workers", metavar="N", min=1, rich_help_panel=MACHINE, help="Number of cases that are processed in parallel."
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        rich_help_panel=MACHINE,
        show_default="this machine",
        help="Dask scheduler whose workers do the work: tcp://HOST:8786 or tls://HOST:8786. All machines need the same "
        "storage. Dask runs all code that it receives: use private networks or TLS.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="NAME",
        rich_help_panel=MACHINE,
        help="Device: auto, cpu, cuda, cuda:1 (one GPU) or mps.",
    ),
]
Devices = Annotated[
    int,
    typer.Option(
        "--devices", metavar="N", min=1, rich_help_panel=MACHINE, help="Number of GPUs, or of processes on a CPU."
    ),
]
Precision = Annotated[
    PrecisionChoice,
    typer.Option(
        "--precision",
        rich_help_panel=MACHINE,
        help="Floating-point precision; auto: bf16 where the hardware supports it, else fp32.",
    ),
]
Layout = Annotated[
    LayoutName,
    typer.Option(
        "--layout",
        rich_help_panel=MACHINE,
        help="Memory layout of feature maps: channels_first (NCDHW), channels_last (NDHWC), or auto: channels_last on "
        "CPUs, channels_first elsewhere. Results differ by rounding only.",
    ),
]

Compile = Annotated[
    bool,
    typer.Option(
        "--compile/--no-compile",
        rich_help_panel=MACHINE,
        help="Compile the network with torch.compile: a slow first step, then faster steps, mainly on GPUs.",
    ),
]
