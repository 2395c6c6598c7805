"""Commands that write trained models for other programs: ``export nnunet``, ``onnx``, ``triton``, ..., and plug-ins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decathlete.cli import options as o
from decathlete.cli.command_groups import build_command
from decathlete.cli.component_settings import ReadingSettings, only_image_formats, split_image_formats
from decathlete.cli.option_values import parse_spacing
from decathlete.cli.terminal import echo
from decathlete.cli.triton_options import (
    TritonAcceleratorArguments,
    TritonBatchingArguments,
    TritonModelArguments,
    to_settings,
)
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.workflows.export_int8 import Int8Program

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
Calibration = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="PATH",
        show_default="the run's training cases",
        help="Calibration data of int8: a dataset, an image, a folder of images, or prepared cases.",
    ),
]
ValidationData = Annotated[
    Path | None,
    typer.Option(
        "--dataset",
        metavar="DIR",
        show_default="the run's",
        help="Validation data of int8: the raw dataset, if it has moved, or labelled cases where none was held out.",
    ),
]


def export_nnunet(
    model: o.ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the nnU-Net model.")],
    overwrite: o.Overwrite = False,
) -> None:
    """Export a model to a folder for prediction with nnU-Net v2. What it cannot represent is rejected with a reason."""
    _export("nnunet", model, output, overwrite=overwrite)


def export_onnx(
    model: o.ModelArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="File NAME.onnx, or a folder for model.onnx.")
    ],
    input_: Inputs = None,
    spacing: o.Spacing = None,
    set_: ReadingSettings = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Export a model to ONNX, for ONNX Runtime and others.

    A program whose logits differ from the model's is not written.
    """
    _export("onnx", model, output, inputs=input_, overwrite=overwrite, **_parse_reading(spacing, set_))


def export_openvino(
    model: o.ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the OpenVINO program.")],
    input_: Inputs = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8/--no-int8",
            help="Quantise convolutions to int8. Rejected if the mean Dice of validation cases falls by 0.002 or more.",
        ),
    ] = False,
    calibration: Calibration = None,
    dataset: ValidationData = None,
    spacing: o.SpacingOfCalibration = None,
    set_: ReadingSettings = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Export a model to OpenVINO, Intel's runtime. A program whose logits differ from the model's is not written."""
    _check_int8_options(int8=int8, input=input_, calibration=calibration, dataset=dataset)
    if int8:
        from decathlete.cli.progress import TerminalReporter
        from decathlete.workflows.export_int8 import export_int8

        progress = TerminalReporter().cases("validate")
        program = export_int8(
            model,
            output,
            dataset=dataset,
            calibration=calibration,
            overwrite=overwrite,
            progress=progress,
            **_parse_reading(spacing, set_),
        )
        echo(_describe_int8(program))
    else:
        _export("openvino", model, output, inputs=input_, overwrite=overwrite, **_parse_reading(spacing, set_))


def export_triton(
    model: o.ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the model repository.")],
    models: TritonModelArguments,
    batching: TritonBatchingArguments,
    accelerators: TritonAcceleratorArguments,
    input_: Inputs = None,
    calibration: Calibration = None,
    dataset: ValidationData = None,
    spacing: o.SpacingOfCalibration = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Export a model to a repository of Triton Inference Server.

    It contains the network, and the pipeline from image to label map. A network whose logits differ from the model's
    is not written. Models of other names in the repository stay.
    """
    from decathlete.cli.progress import TerminalReporter
    from decathlete.workflows.export_triton import export_triton as export

    result = export(
        model,
        output,
        settings=to_settings(models, batching, accelerators),
        inputs=input_,
        dataset=dataset,
        calibration=calibration,
        overwrite=overwrite,
        progress=TerminalReporter().cases("validate") if models.precision == "int8" else None,
        spacing=parse_spacing(spacing),
        image_formats=split_image_formats(models.set_)[0],
    )
    echo(result.summary)


def _parse_reading(spacing: str | None, assignments: list[str] | None) -> dict[str, Any]:
    """Return the arguments about the reading of images.

    Raises:
        OptionError: a malformed spacing, or an assignment to something else than a setting of an image format.
    """
    return {"spacing": parse_spacing(spacing), "image_formats": only_image_formats(assignments)}


def _check_int8_options(*, int8: bool, **paths: Path | None) -> None:
    """Reject options that would have no effect."""
    ineffective = [f"--{name}" for name, value in paths.items() if value is not None and (name == "input") == int8]
    if ineffective and int8:
        raise OptionError(
            "--input has no effect with --int8",
            remedy="leave it out: calibration windows are compared",
            code="E-OPTION-CONFLICT",
        )
    if ineffective:
        raise OptionError(
            f"{' and '.join(ineffective)} without --int8 has no effect",
            remedy="add --int8, or leave it out",
            code="E-OPTION-CONFLICT",
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


def plugin_command(name: str) -> Any:
    """Return the command of an exporter that has no function here: its summary is the help, its settings are --set."""
    from decathlete.export.exporters import EXPORTERS

    component = EXPORTERS.load(name)
    fields, texts = component.settings.model_fields, component.settings.descriptions()
    described = "; ".join(f"{field}: {texts[field] or info.annotation}" for field, info in fields.items())

    def export_plugin(
        model: o.ModelArgument,
        output: Annotated[Path, typer.Option("--output", "-o", metavar="PATH", help="File or folder to write.")],
        set_: list[str] | None = None,
        input_: Inputs = None,
        spacing: o.Spacing = None,
        overwrite: o.Overwrite = False,
    ) -> None:
        image_formats, assignments = split_image_formats(set_)
        _export(
            name,
            model,
            output,
            inputs=input_,
            settings=_parse_settings(assignments),
            overwrite=overwrite,
            spacing=parse_spacing(spacing),
            image_formats=image_formats,
        )

    export_plugin.__annotations__["set_"] = Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Setting of the exporter, or of an image format that changes how images are read, "
            f"image_format.NAME.SETTING=VALUE. Can be repeated. {described}".strip(),
        ),
    ]
    export_plugin.__doc__ = component.summary
    return build_command(name, export_plugin)


def _parse_settings(given: list[str]) -> dict[str, Any]:
    """Return ``NAME=VALUE`` as a mapping; values are JSON, or else text."""
    from decathlete.core.documents import parse_json

    settings: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals:
            raise OptionError(f"--set {item} has no value", remedy="write --set NAME=VALUE")
        try:
            settings[name.strip()] = parse_json(value)
        except ValueError:
            settings[name.strip()] = value
    return settings


def _export(
    name: str,
    model: Path,
    output: Path,
    *,
    inputs: Path | None = None,
    settings: dict[str, Any] | None = None,
    overwrite: bool,
    **reading: Any,
) -> None:
    from decathlete.workflows.export_model import export_model

    result = export_model(name, model, output, inputs=inputs, settings=settings, overwrite=overwrite, **reading)
    for note in result.notes:
        echo(f"note: {note}", err=True)
    echo(result.summary)
