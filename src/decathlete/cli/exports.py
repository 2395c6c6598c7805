"""Commands that give trained models to other programs: export nnunet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decathlete.cli import options as o


def export_nnunet(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run's folder, or the model folder in it.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the nnU-Net model.")],
    overwrite: o.Overwrite = False,
) -> None:
    """Make a folder that nnU-Net v2 predicts with, by itself. What it has no words for is refused with the reason."""
    from decathlete.interop.to_nnunet import export_nnunet as function

    made = function(model, output, overwrite=overwrite)
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"nnU-Net v2 model in {made.folder}; it predicts with\n{made.command}")
