"""Commands ``export nnunet``, ``export onnx`` and ``export openvino``."""

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
Inputs = Annotated[
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
    """Export a model to nnU-Net v2, which predicts with it. A model that nnU-Net cannot represent is rejected with the
    reason."""
    from decathlete.interop.nnunet_export import export_nnunet as export_model

    exported = export_model(model, output, overwrite=overwrite)
    for note in exported.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"nnU-Net v2 model in {exported.folder}; predict with\n{exported.command}")


def export_onnx(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="File NAME.onnx, or a folder for model.onnx.")
    ],
    input_: Inputs = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Export a model to ONNX, e.g. for ONNX Runtime. A program whose logits differ from the model's is not written."""
    from decathlete.workflows.export_program import export_onnx as export_program

    typer.echo(_describe(export_program(model, output, inputs=input_, overwrite=overwrite)))


def export_openvino(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the OpenVINO program.")],
    input_: Inputs = None,
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
    """Export a model to OpenVINO, Intel's runtime. A program whose logits differ from the model's is not written."""
    _check_int8_options(int8=int8, input=input_, calibration=calibration, dataset=dataset)
    if int8:
        from decathlete.cli.progress import TerminalReporter
        from decathlete.workflows.export_int8 import export_int8

        progress = TerminalReporter().cases("validate")
        program = export_int8(
            model, output, dataset=dataset, calibration=calibration, overwrite=overwrite, progress=progress
        )
        typer.echo(_describe_int8(program))
    else:
        from decathlete.workflows.export_program import export_openvino as export_program

        typer.echo(_describe(export_program(model, output, inputs=input_, overwrite=overwrite)))


def _check_int8_options(*, int8: bool, **paths: Path | None) -> None:
    """Reject options that would have no effect."""
    ineffective = [f"--{name}" for name, value in paths.items() if value is not None and (name == "input") == int8]
    if ineffective and int8:
        raise OptionError("--input has no effect with --int8", remedy="leave it out: calibration windows are compared")
    if ineffective:
        raise OptionError(
            f"{' and '.join(ineffective)} without --int8 has no effect", remedy="add --int8, or leave it out"
        )


def _describe_int8(program: Int8Program) -> str:
    record = program.quantisation
    return (
        f"int8 program in {program.path}, calibrated on {record.calibrated_on} windows\n"
        f"mean Dice of {record.validated_on} validation cases: {record.dice_fp32:.4f} in fp32, "
        f"{record.dice_int8:.4f} in int8\n"
        f"one window: {program.seconds_fp32:.3g} s in fp32, {program.seconds_int8:.3g} s in int8, "
        f"{program.seconds_fp32 / program.seconds_int8:.2f} times as fast here"
    )


def _describe(program: ExportedProgram) -> str:
    difference = f"logits differ from the model's by {program.difference:.1e} of the greatest"
    return f"program in {program.path}; {difference}, on {program.checked_on} windows of {program.windows_of}"
