"""Commands that take over trained models of other programs: import nnunet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decathlete.cli import options as o
from decathlete.core.choices import Weights


def import_nnunet(
    source: Annotated[
        Path,
        typer.Argument(metavar="FOLDER_OR_ZIP", help="A trained nnU-Net v2 model: folder, or exported zip."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the model that is made.")],
    configuration: Annotated[
        str | None,
        typer.Option(
            "--configuration", metavar="NAME", show_default="the only one", help="Where there are several: 3d_fullres."
        ),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option("--folds", metavar="FOLDS", show_default="all", help="Of nnU-Net, averaged: 0,1,4, or all."),
    ] = None,
    checkpoint: Annotated[
        Weights | None,
        typer.Option("--checkpoint", show_default="final, where there is one", help="Which checkpoints to take."),
    ] = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Take over a trained nnU-Net v2 model, with all its folds. `predict` then gives what nnUNetv2_predict gives."""
    from decathlete.interop.nnunet import import_nnunet as function

    made = function(
        source,
        output,
        configuration=configuration,
        folds=[fold.strip() for fold in (folds or "").split(",") if fold.strip()],
        weights=checkpoint,
        overwrite=overwrite,
    )
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    plan = made.bundle.record.plan
    typer.echo(f"{plan.dims}D model of {plan.dataset}, fold {', '.join(made.folds)}, in {made.bundle.folder}")
