"""Commands that give trained models to other programs: export nnunet, onnx, openvino."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decathlete.cli import options as o

if TYPE_CHECKING:
    from decathlete.export.programs import ExportedProgram

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A run's folder, or the model folder in it.")]
CheckedOn = Annotated[
    Path | None,
    typer.Option(
        "--input",
        "-i",
        metavar="PATH",
        show_default="smooth noise",
        help="Compare with the model on these: an image, a folder of images, or prepared cases.",
    ),
]


def export_nnunet(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the nnU-Net model.")],
    overwrite: o.Overwrite = False,
) -> None:
    """Make a folder that nnU-Net v2 predicts with, by itself. What it has no words for is refused with the reason."""
    from decathlete.interop.to_nnunet import export_nnunet as function

    made = function(model, output, overwrite=overwrite)
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"nnU-Net v2 model in {made.folder}; it predicts with\n{made.command}")


def export_onnx(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="A file NAME.onnx, or a folder for model.onnx.")
    ],
    input_: CheckedOn = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Make an ONNX program, for ONNX Runtime and others. One with other logits than the model's is not written."""
    from decathlete.export.programs import export_onnx as function

    typer.echo(_said(function(model, output, inputs=input_, overwrite=overwrite)))


def export_openvino(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the OpenVINO program.")],
    input_: CheckedOn = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Make an OpenVINO program, for Intel's runtime. One with other logits than the model's is not written."""
    from decathlete.export.programs import export_openvino as function

    typer.echo(_said(function(model, output, inputs=input_, overwrite=overwrite)))


def _said(made: ExportedProgram) -> str:
    differ = f"logits differ from the model's by {made.difference:.1e} of the greatest, on {made.checked_on} windows"
    return f"program in {made.path}; {differ}"
