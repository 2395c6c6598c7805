"""The command that serves models over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decathlete.cli import options as o
from decathlete.cli.component_settings import (
    EngineAndReadingSettings,
    choose_engine,
    engine_assignments,
    split_image_formats,
)
from decathlete.cli.dicom_node_options import DicomNodeArguments
from decathlete.cli.option_values import parse_spacing
from decathlete.cli.output_options import DicomCodes
from decathlete.cli.prediction_options import Engine, PredictionArguments
from decathlete.cli.service_options import LOCAL, LimitArguments, ListenAddress, ProtectionArguments
from decathlete.cli.terminal import echo

Models = Annotated[
    list[str],
    typer.Option(
        "--model",
        metavar="[NAME=]DIR",
        help="Model to offer: folder of a run, a model or an exported program. Can be repeated; NAME is its name in "
        "the API.",
    ),
]
Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of the queue, the uploads and the results.")]
Studies = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|URL",
        help="Images for 3D Slicer and OHIF: a folder, which is only read, or the address of a DICOMweb server.",
    ),
]


def serve(
    model: Models,
    windows: PredictionArguments,
    dicom: DicomNodeArguments,
    protection: ProtectionArguments,
    limits: LimitArguments,
    data: Data = Path("decathlete-service"),
    studies: Studies = None,
    dicom_codes: DicomCodes = None,
    host: ListenAddress = LOCAL,
    precision: o.Precision = "auto",
    layout: o.Layout = "auto",
    engine: Engine = "auto",
    set_: EngineAndReadingSettings = None,
    spacing: o.Spacing = None,
    device: o.Device = "auto",
) -> None:
    """Segment images that people and programs send over HTTP. Jobs survive a restart; Ctrl-C ends the service."""
    from decathlete.core.extras import import_optional

    for package, title in (("fastapi", "FastAPI"), ("uvicorn", "uvicorn"), ("prometheus_client", "prometheus-client")):
        import_optional(package, title=title, extra="serve")
    from decathlete.inference.output.dicom import read_structure_codes
    from decathlete.serving.http.server import serve as serve_models
    from decathlete.serving.settings import ModelSource, ServiceSettings

    image_formats, others = split_image_formats(set_)
    of_engine = engine_assignments(others, forms="engine.SETTING=VALUE or image_format.NAME.SETTING=VALUE")
    codes = read_structure_codes(dicom_codes) if dicom_codes is not None else {}
    settings = ServiceSettings(
        models=tuple(ModelSource.parse(text) for text in model),
        data=data,
        studies=studies,
        host=host,
        port=protection.port,
        token=protection.read_token(),
        allow_hosts=tuple(protection.allow_host or ()),
        allow_origins=tuple(protection.allow_origin or ()),
        model_memory_bytes=limits.model_memory_bytes,
        limits=limits.to_limits(),
        options=windows.to_predict_options(
            device=device,
            precision=precision,
            layout=layout,
            engine=choose_engine(engine, of_engine),
        ),
        spacing=parse_spacing(spacing),
        image_formats=image_formats,
        dicom_codes=codes,
    )
    serve_models(
        settings,
        dicom_node=dicom.to_settings(data, settings.limits),
        on_start=lambda address: echo(f"serving at {address} (Ctrl-C ends the service)"),
    )
