"""Commands ``import nnunet`` and ``import dynunet``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decathlete.cli import options as o
from decathlete.cli.option_values import parse_decimals, parse_dims, parse_integers, parse_names
from decathlete.cli.terminal import echo
from decathlete.core.choices import Modality, Norm, Weights
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.interop.dynunet_options import DynUNetOptions

SETTINGS, NETWORK = "Settings that a checkpoint does not contain", "Network"
_FOLDS = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
Output = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the new model.")]


def import_nnunet(
    source: Annotated[
        Path,
        typer.Argument(metavar="FOLDER_OR_ZIP", help="Trained nnU-Net v2 model: folder, or exported zip."),
    ],
    output: Output,
    configuration: Annotated[
        str | None,
        typer.Option(
            "--configuration",
            metavar="NAME",
            show_default="the only one",
            help="Configuration, if there are several: 3d_fullres.",
        ),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            "--folds",
            metavar="FOLDS",
            show_default="every fold; fold_all if it is the only one",
            help="Folds that are imported and averaged: 0-4 or 0,2. "
            "all: the network that was trained on all cases, nnU-Net's fold_all.",
        ),
    ] = None,
    checkpoint: Annotated[
        Weights | None,
        typer.Option("--checkpoint", show_default="final, where there is one", help="Checkpoints that are imported."),
    ] = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Import a trained nnU-Net v2 model with its folds. `predict` gives the same results as nnUNetv2_predict."""
    from decathlete.interop.nnunet import import_nnunet as import_model

    imported = import_model(
        source,
        output,
        configuration=configuration,
        folds=_parse_folds(folds),
        weights=checkpoint,
        overwrite=overwrite,
    )
    for note in imported.notes:
        echo(f"note: {note}", err=True)
    plan = imported.bundle.record.plan
    folds_text = (
        "fold_all (trained on all cases)" if imported.folds == ("all",) else f"fold {', '.join(imported.folds)}"
    )
    echo(f"{plan.dims}D model of {plan.dataset}, {folds_text}, in {imported.bundle.folder}")


def _parse_folds(text: str | None) -> list[str]:
    """Parse the value of ``--folds``: numbers, ranges and ``all``. ``None`` is an empty list: every fold.

    Raises:
        OptionError: the text is not a list of folds.
    """
    folds: list[str] = []
    for part in [] if text is None else text.replace(" ", "").split(","):
        match = _FOLDS.fullmatch(part)
        numbers = range(int(match[1]), int(match[2] or match[1]) + 1) if match else ()
        named = ["all"] if part == "all" else [str(fold) for fold in numbers]
        if not named:
            raise OptionError(
                f"--folds {text!r} is not a list of nnU-Net's folds",
                remedy="write e.g. --folds 0,1,4 or 0-4, or --folds all for fold_all; leave it out for every fold",
                code="E-OPTION-SYNTAX",
            )
        folds += named
    return folds


@dataclass(frozen=True, kw_only=True)
class CheckpointArguments:
    """Settings of a checkpoint of NVIDIA's nnU-Net for PyTorch that it may not contain itself."""

    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            show_default="the checkpoint's",
            rich_help_panel=SETTINGS,
            help="Task of the recipe: its number (04) or folder name. It determines settings that the "
            "options below leave open.",
        ),
    ] = None
    patch_size: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X",
            show_default="the task's",
            rich_help_panel=SETTINGS,
            help="Patch size, voxels; Y,X for a 2D model.",
        ),
    ] = None
    spacing: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X",
            show_default="the task's",
            rich_help_panel=SETTINGS,
            help="Target spacing, mm; Y,X for a 2D model.",
        ),
    ] = None
    modality: Annotated[
        Modality | None,
        typer.Option(
            show_default="by the first channel's name",
            rich_help_panel=SETTINGS,
            help="Modality: CT is clipped and scaled, MRI (and all others) z-scored over non-zero voxels.",
        ),
    ] = None
    ct_stats: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH,MEAN,STD",
            show_default="the task's",
            rich_help_panel=SETTINGS,
            help="CT normalisation: clip limits, mean and standard deviation, HU.",
        ),
    ] = None
    dataset: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=SETTINGS,
            help="Folder whose dataset.json names channels and labels.",
        ),
    ] = None
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            show_default="the dataset's or the task's",
            rich_help_panel=SETTINGS,
            help="Names of the image channels.",
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            show_default="the dataset's or the task's",
            rich_help_panel=SETTINGS,
            help="Names of the labels 1, 2, ...",
        ),
    ] = None
    brats: Annotated[
        bool | None,
        o.brats_option(
            "The outputs are whole tumour, tumour core and enhancing tumour, as in the recipe's BraTS loss.",
            default="the checkpoint's option",
        ),
    ] = None
    regions: Annotated[
        str | None,
        o.regions_option("Regions of the outputs, if they are others: 'whole tumour=1,2,3;core=2,3'.", default=True),
    ] = None
    dim: Annotated[
        o.Dim | None,
        typer.Option(
            show_default="the weights'",
            rich_help_panel=NETWORK,
            help="Expected dimensions of the model: 2 (slices) or 3 (volumes).",
        ),
    ] = None
    norm: Annotated[
        Norm | None,
        typer.Option(
            show_default="the checkpoint's option",
            rich_help_panel=NETWORK,
            help="Normalisation layers; instance and group norm have the same weights.",
        ),
    ] = None
    negative_slope: Annotated[
        float | None,
        typer.Option(
            metavar="SLOPE",
            min=0.0,
            max=1.0,
            show_default="the checkpoint's option",
            rich_help_panel=NETWORK,
            help="Negative slope of the leaky ReLU.",
        ),
    ] = None

    def to_dynunet_options(self) -> DynUNetOptions:
        """Return the options as :class:`DynUNetOptions`."""
        from decathlete.interop.dynunet_options import DynUNetOptions

        return DynUNetOptions(
            task=self.task,
            dims=None if self.dim is None else parse_dims(self.dim),
            patch_size=parse_integers(self.patch_size, flag="--patch-size"),
            spacing=parse_decimals(self.spacing, flag="--spacing", example="1,0.8,0.8"),
            modality=self.modality,
            ct_stats=parse_decimals(self.ct_stats, flag="--ct-stats", example="-17,201,99.4,39.36"),
            dataset=self.dataset,
            channels=parse_names(self.channels),
            labels=parse_names(self.labels),
            brats=self.brats,
            regions=self.regions,
            norm=self.norm,
            negative_slope=self.negative_slope,
        )


def import_dynunet(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Lightning checkpoint (.ckpt).")],
    output: Output,
    settings: CheckpointArguments,
    overwrite: o.Overwrite = False,
) -> None:
    """Import a checkpoint of NVIDIA's nnU-Net for PyTorch.

    Its network is MONAI's DynUNet; `predict` uses the imported model. The settings of the model are printed, each with
    its reason.
    """
    from decathlete.interop.dynunet import import_dynunet as import_model
    from decathlete.planning.explain import explain

    imported = import_model(checkpoint, output, options=settings.to_dynunet_options(), overwrite=overwrite)
    echo(explain(imported.plan))
    for note in imported.notes:
        echo(f"note: {note}", err=True)
    echo(f"model in {imported.bundle.folder}")
