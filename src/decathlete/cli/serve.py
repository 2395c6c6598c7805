"""The command that serves models over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decathlete.cli import options as o
from decathlete.cli.dicom_node_options import DicomNodeArguments
from decathlete.cli.prediction_options import PredictionArguments
from decathlete.cli.terminal import echo

LIMITS = "Limits"
PROTECTION = "Address and protection"


def serve(
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            metavar="[NAME=]DIR",
            help="Model to offer: folder of a run, a model or an exported program. Repeat it for several models; NAME "
            "is its name in the API.",
        ),
    ],
    windows: PredictionArguments,
    dicom: DicomNodeArguments,
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Folder of the queue, the uploads and the results.")
    ] = Path("decathlete-service"),
    studies: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            help="Images for 3D Slicer and OHIF: a folder, which is only read, or the address of a DICOMweb server.",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Address to listen at; 0.0.0.0: every one."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, rich_help_panel=PROTECTION, help="Port; 0: any free one.")
    ] = 8080,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=PROTECTION,
            help="File with the token that every request needs; required unless only this computer can connect.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=PROTECTION,
            help="Further name under which the service is reached, e.g. through a proxy. Repeat it for several.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            rich_help_panel=PROTECTION,
            help="Other site whose pages may use the API, e.g. https://viewer.example.org. Repeat it for several.",
        ),
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            rich_help_panel=LIMITS,
            help="Age at which images and results are deleted: 90s, 20m, 12h, 7d.",
        ),
    ] = "7d",
    max_upload: Annotated[
        float, typer.Option(metavar="GB", min=0, rich_help_panel=LIMITS, help="Greatest size of an upload.")
    ] = 2.0,
    max_image: Annotated[
        float,
        typer.Option(
            metavar="GB",
            min=0,
            rich_help_panel=LIMITS,
            help="Greatest size of an image in memory (4 bytes for each voxel and channel) and of an unpacked archive.",
        ),
    ] = 8.0,
    max_jobs: Annotated[
        int, typer.Option(metavar="N", min=1, rich_help_panel=LIMITS, help="Greatest number of jobs that wait.")
    ] = 1000,
    max_time: Annotated[
        str,
        typer.Option(
            metavar="DURATION", rich_help_panel=LIMITS, help="Longest upload, and longest computation of one job."
        ),
    ] = "1h",
    model_memory: Annotated[
        float | None,
        typer.Option(
            metavar="GB",
            min=0,
            rich_help_panel=LIMITS,
            show_default="all models stay loaded",
            help="Memory for loaded models, by the size of their files; the least recently used ones are unloaded.",
        ),
    ] = None,
    precision: o.Precision = "auto",
    layout: o.Layout = "auto",
    engine: o.Engine = "auto",
    device: o.Device = "auto",
) -> None:
    """Segment images that people and programs send over HTTP. Jobs survive a restart; Ctrl-C ends the service."""
    from decathlete.core.durations import parse_duration
    from decathlete.core.extras import import_optional

    for package, title in (("fastapi", "FastAPI"), ("uvicorn", "uvicorn"), ("prometheus_client", "prometheus-client")):
        import_optional(package, title=title, extra="serve")
    from decathlete.serving.http.server import serve as serve_models
    from decathlete.serving.settings import ModelSource, ServiceLimits, ServiceSettings, read_token

    seconds = parse_duration(max_time)
    settings = ServiceSettings(
        models=tuple(ModelSource.parse(text) for text in model),
        data=data,
        studies=studies,
        host=host,
        port=port,
        token=read_token(token_file) if token_file else None,
        allow_hosts=tuple(allow_host or ()),
        allow_origins=tuple(allow_origin or ()),
        model_memory_bytes=None if model_memory is None else round(model_memory * 1e9),
        limits=ServiceLimits(
            upload_bytes=round(max_upload * 1e9),
            image_bytes=round(max_image * 1e9),
            waiting_jobs=max_jobs,
            job_seconds=seconds,
            upload_seconds=seconds,
            keep_seconds=parse_duration(keep),
        ),
        options=windows.to_predict_options(device=device, precision=precision, layout=layout, engine=engine),
    )
    serve_models(
        settings,
        dicom_node=dicom.to_settings(data, keep_seconds=settings.limits.keep_seconds),
        on_start=lambda address: echo(f"serving at {address} (Ctrl-C ends the service)"),
    )
