"""Options that several commands share, and parsers of their values."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from decathlete.cli.component_name import ComponentName
from decathlete.cli.config_file import apply_preset, load_config_file
from decathlete.core.choices import Blend as BlendName
from decathlete.core.choices import Configuration, PrecisionChoice, PresetName
from decathlete.core.choices import Layout as LayoutName
from decathlete.core.digits import parse_digits
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.core.geometry import Triple
    from decathlete.evaluation.metrics import Metric

PLACES, MACHINE, PREDICTION, SPLIT, SELECTION = "Folders", "Machine", "Prediction", "Split", "Selection"
REGIONS = "Overlapping regions"
PARTIAL = "Partially annotated cases"
"""Sections of ``--help``. An option without a section is listed under Options."""

Dim = Literal["2", "3"]


def import_plugins(modules: list[str] | None) -> list[str] | None:
    """Import modules that register components.

    Raises:
        OptionError: a module cannot be imported.
    """
    from importlib import import_module

    for module in modules or ():
        try:
            import_module(module)
        except Exception as problem:  # the module may raise anything
            raise OptionError(
                f"--plugin {module}: cannot be imported ({type(problem).__name__}: {problem})",
                remedy="install it, or set PYTHONPATH to the folder that contains it",
                code="E-COMPONENT-IMPORT",
            ) from problem
    return modules


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


def overlap_option(section: str) -> Any:
    """Return the option for the overlap of sliding windows, in a section of ``--help``."""
    return typer.Option(
        metavar="SHARE",
        min=0.0,
        max=0.95,
        rich_help_panel=section,
        help="Overlap of neighbouring windows, share of the patch.",
    )


def blend_option(section: str) -> Any:
    """Return the option for the weights of overlapping windows, in a section of ``--help``."""
    return typer.Option(
        rich_help_panel=section, help="Weights of overlapping windows: gaussian (most in the centre) or constant."
    )


def regions_option(help_: str, *, default: str | bool) -> Any:
    """Return the option ``--regions``. Its syntax is the same in all commands."""
    return typer.Option(
        "--regions", metavar="NAME=VALUES;...", rich_help_panel=REGIONS, show_default=default, help=help_
    )


def brats_option(help_: str, *, default: str | bool) -> Any:
    """Return the option ``--brats/--no-brats``."""
    return typer.Option("--brats/--no-brats", rich_help_panel=REGIONS, show_default=default, help=help_)


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
        metavar="MODULE",
        is_eager=True,
        callback=import_plugins,
        help="Python module with components, imported before the command runs. Installed plug-ins do "
        "not need it. Can be repeated.",
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
Spacing = Annotated[
    str | None,
    typer.Option(
        "--spacing",
        metavar="Z,Y,X",
        show_default="such files are errors",
        help="Spacing of images whose files do not contain it, mm: 3,0.8,0.8 (slices, rows, columns). Images that "
        "contain their spacing keep it.",
    ),
]
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
Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="NAMES",
        show_default="dice,iou,nsd,hd95_mm",
        help="Metrics, separated by commas: names (`decathlete components metric` lists them) or module:Class.",
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="MM",
        min=0.001,
        show_default="1",
        help="Tolerance of the normalised surface Dice, mm; the same as nsd.tolerance_mm.",
    ),
]
MetricSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="METRIC.SETTING=VALUE",
        show_default=False,
        help="Setting of a metric, e.g. nsd.tolerance_mm=2. Can be repeated.",
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
        help="Test-time augmentation: average over the flips that training used (short trainings: "
        "none); up to 8 times slower.",
    ),
]
Overlap = Annotated[float, overlap_option(PREDICTION)]
Blend = Annotated[BlendName, blend_option(PREDICTION)]
MemoryLimit = Annotated[
    float | None,
    typer.Option(
        "--memory",
        metavar="GB",
        min=0.5,
        show_default="2 GB for sums of logits",
        rich_help_panel=PREDICTION,
        help="Memory limit of a prediction on a CPU; sums beyond it are kept on disk, in the output folder.",
    ),
]
WindowBatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        metavar="N",
        min=1,
        show_default="the plan's; few on a CPU",
        rich_help_panel=PREDICTION,
        help="Windows (2D: slices) per batch, of several images if these are small; fewer need less memory.",
    ),
]


def parse_metrics(
    names: str | None, *, tolerance_mm: float | None = None, settings: list[str] | None = None
) -> tuple[Metric, ...] | None:
    """Make the metrics of ``--metrics``, ``--tolerance`` and ``--set``; ``None`` if none of them is set.

    Raises:
        OptionError: metrics or their settings are unknown or not allowed.
    """
    if names is None and tolerance_mm is None and not settings:
        return None
    from decathlete.evaluation.metrics import make_metrics

    listed = None if names is None else parse_names(names)
    return make_metrics(listed, tolerance_mm=tolerance_mm, settings=settings or ())


def parse_dims(dim: Dim) -> Literal[2, 3]:
    """Parse the value of ``--dim``."""
    return 2 if dim == "2" else 3


def parse_integers(text: str | None, *, flag: str) -> tuple[int, ...] | None:
    """Parse a list of whole numbers, e.g. ``128,128,128``. ``None`` stays ``None``.

    Raises:
        OptionError: the text is not a list of whole numbers.
    """
    if text is None:
        return None
    parts = [parse_digits(part.strip()) for part in text.split(",")]
    numbers = tuple(number for number in parts if number is not None)
    if len(numbers) < len(parts):
        raise OptionError(
            f"{flag} {text!r} is not a list of whole numbers",
            remedy=f"write e.g. {flag} 128,128,128",
            code="E-OPTION-SYNTAX",
        )
    return numbers


def parse_decimals(text: str | None, *, flag: str, example: str) -> tuple[float, ...] | None:
    """Parse a list of numbers, e.g. ``1,0.8,0.8``. ``None`` stays ``None``.

    Raises:
        OptionError: the text is not a list of numbers.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(
            f"{flag} {text!r} is not a list of numbers", remedy=f"write e.g. {flag} {example}", code="E-OPTION-SYNTAX"
        ) from None


def parse_spacing(text: str | None) -> Triple | None:
    """Parse the value of ``--spacing``. ``None`` stays ``None``.

    Raises:
        OptionError: the text is not three positive numbers.
    """
    values = parse_decimals(text, flag="--spacing", example="3,0.8,0.8")
    if values is None:
        return None
    if len(values) != 3 or not all(isfinite(v) and v > 0 for v in values):
        raise OptionError(
            f"--spacing {text!r} is not three positive numbers",
            remedy="write the distances of slices, rows and columns in mm, e.g. --spacing 3,0.8,0.8",
            code="E-OPTION-SYNTAX",
        )
    return (values[0], values[1], values[2])


def parse_names(text: str | None) -> tuple[str, ...]:
    """Parse a list of names, e.g. ``liver,cancer``. ``None`` is an empty list."""
    return tuple(name for part in (text or "").split(",") if (name := part.strip()))


def parse_fold(text: str | None) -> int | Literal["all"]:
    """Parse the value of ``--fold``. ``None`` is fold 0.

    Raises:
        OptionError: the value is neither a whole number nor ``all``.
    """
    if text is None:
        return 0
    if text == "all":
        return "all"
    number = parse_digits(text)
    if number is None:
        raise OptionError(
            f"--fold {text!r} is not a fold", remedy="use a whole number from 0, or all", code="E-OPTION-FOLD"
        )
    return number
