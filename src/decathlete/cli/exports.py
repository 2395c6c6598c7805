"""Commands that give trained models to other programs: export nnunet, onnx, openvino."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decathlete.cli import options as o
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.export.programs import ExportedProgram
    from decathlete.workflows.export_int8 import Int8Program

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A run's folder, or the model folder in it.")]
CheckedOn = Annotated[
    Path | None,
    typer.Option(
        "--input",
        "-i",
        metavar="PATH",
        show_default="held-out cases of the model's run",
        help="Images for the comparison with the model: a file, a folder of images, or prepared cases.",
    ),
]


def export_nnunet(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the nnU-Net model.")],
    overwrite: o.Overwrite = False,
) -> None:
    """Export a model to a folder for prediction with nnU-Net v2. What it cannot represent is rejected with a reason."""
    from decathlete.interop.to_nnunet import export_nnunet as function

    made = function(model, output, overwrite=overwrite)
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"nnU-Net v2 model in {made.folder}; it predicts with\n{made.command}")


def export_onnx(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="File NAME.onnx, or a folder for model.onnx.")
    ],
    input_: CheckedOn = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Make an ONNX program, for ONNX Runtime and others. One with other logits than the model's is not written."""
    from decathlete.workflows.export_program import export_onnx as function

    typer.echo(_said(function(model, output, inputs=input_, overwrite=overwrite)))


def export_openvino(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the OpenVINO program.")],
    input_: CheckedOn = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8/--no-int8",
            help="Quantise convolutions to int8. Rejected if the mean Dice of validation cases falls by 0.002 or more.",
        ),
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            metavar="PATH",
            show_default="the run's training cases",
            help="Calibration data of --int8: a dataset, an image, a folder of images, or prepared cases.",
        ),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset",
            metavar="DIR",
            show_default="the run's",
            help="Validation data of --int8: the raw dataset, if it has moved, or labelled cases where "
            "none was held out.",
        ),
    ] = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Make an OpenVINO program, for Intel's runtime. One with other logits than the model's is not written."""
    _check_int8_options(int8=int8, input=input_, calibration=calibration, dataset=dataset)
    if int8:
        from decathlete.cli.progress import TerminalListener
        from decathlete.workflows.export_int8 import export_int8

        progress = TerminalListener().cases("validate")
        quantised = export_int8(
            model, output, dataset=dataset, calibration=calibration, overwrite=overwrite, progress=progress
        )
        typer.echo(_said_int8(quantised))
    else:
        from decathlete.workflows.export_program import export_openvino as function

        typer.echo(_said(function(model, output, inputs=input_, overwrite=overwrite)))


def _check_int8_options(*, int8: bool, **given: Path | None) -> None:
    """Refuse what would have no effect."""
    named = [f"--{name}" for name, value in given.items() if value is not None and (name == "input") == int8]
    if named and int8:
        raise OptionError(
            "--input has no effect with --int8",
            remedy="leave it out: calibration windows are compared",
            code="E-OPTION-CONFLICT",
        )
    if named:
        raise OptionError(
            f"{' and '.join(named)} without --int8 has no effect",
            remedy="add --int8, or leave it out",
            code="E-OPTION-CONFLICT",
        )


def _said_int8(made: Int8Program) -> str:
    found = made.quantisation
    return (
        f"int8 program in {made.path}, calibrated on {found.calibrated_on} windows\n"
        f"mean Dice of {found.validated_on} validation cases: {found.dice_fp32:.4f} in fp32, {found.dice_int8:.4f} in "
        f"int8\n"
        f"one window: {made.seconds_fp32:.3g} s in fp32, {made.seconds_int8:.3g} s in int8, "
        f"{made.seconds_fp32 / made.seconds_int8:.2f} times as fast here"
    )


def _said(made: ExportedProgram) -> str:
    differ = f"logits differ from the model's by {made.difference:.1e} of the greatest"
    return f"program in {made.path}; {differ}, on {made.checked_on} windows of {made.windows_of}"
