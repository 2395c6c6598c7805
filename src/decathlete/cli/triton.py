"""Commands ``triton start``, ``triton verify`` and ``triton benchmark``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from decathlete.cli import options as o
from decathlete.cli.component_settings import ReadingSettings, only_image_formats
from decathlete.cli.option_values import parse_spacing
from decathlete.cli.terminal import echo
from decathlete.cli.triton_client_options import (
    AtOnce,
    ConnectionArguments,
    MeasurementArguments,
    Name,
    ThresholdArguments,
    images_option,
)
from decathlete.cli.triton_options import Models

if TYPE_CHECKING:
    from decathlete.serving.triton.verify import VerificationReport

_PROBLEMS_SHOWN = 12
Repository = Annotated[Path, typer.Argument(metavar="REPOSITORY", help="Folder that `export triton` wrote.")]
Host = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on; 0.0.0.0: all addresses.")]
HttpPort = Annotated[int, typer.Option("--http-port", metavar="PORT", help="Port of the HTTP service.")]
GrpcPort = Annotated[int, typer.Option("--grpc-port", metavar="PORT", help="Port of the gRPC service.")]
MetricsPort = Annotated[int, typer.Option("--metrics-port", metavar="PORT", help="Port of the Prometheus metrics.")]
ModelControl = Annotated[
    Literal["none", "poll", "explicit"],
    typer.Option(
        "--model-control",
        help="none: load all models; poll: follow changes of the repository; explicit: load those of --load, and "
        "let clients load and unload.",
    ),
]
Load = Annotated[
    list[str] | None,
    typer.Option("--load", metavar="NAME", help="Model to load, with explicit. Can be repeated."),
]
Server = Annotated[
    Path | None,
    typer.Option(
        "--server",
        metavar="PATH",
        show_default="found on PATH, or in .venv-triton",
        help="Program tritonserver, or a Python environment with nvidia-pytriton.",
    ),
]
Protocols = Annotated[Literal["both", "http", "grpc"], typer.Option("--protocol", help="Protocol of the requests.")]
Protocol = Annotated[Literal["http", "grpc"], typer.Option("--protocol", help="Protocol of the requests.")]
MaxCases = Annotated[
    int, typer.Option("--max-cases", metavar="N", min=1, help="Number of cases that are sent, at most.")
]
Send = Annotated[
    Literal["volume", "file"], typer.Option("--send", help="How the pipeline receives an image: array or file.")
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        show_default="that of the pipeline",
        help="Inference engine here that the pipeline is compared with.",
    ),
]
Dump = Annotated[
    Path | None,
    typer.Option("--dump", metavar="DIR", show_default="none", help="Folder for inputs and outputs as .npz files."),
]
OneModel = Annotated[Literal["network", "pipeline"], typer.Option("--models", help="Network or pipeline.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="DIR", show_default="none", help="Folder for benchmark.csv, .json, .md and .png."
    ),
]


def start(
    repository: Repository,
    host: Host = "127.0.0.1",
    http_port: HttpPort = 8000,
    grpc_port: GrpcPort = 8001,
    metrics_port: MetricsPort = 8002,
    model_control: ModelControl = "none",
    load: Load = None,
    server: Server = None,
) -> None:
    """Start Triton Inference Server for a model repository. It runs until Ctrl-C."""
    from decathlete.serving.triton.server import TritonServerOptions, triton_start

    options = TritonServerOptions(
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        control=model_control,
        load=tuple(load or ()),
    )
    triton_start(repository, options=options, server=server, environment=os.environ)


def verify(
    model: o.ModelArgument,
    connection: ConnectionArguments,
    thresholds: ThresholdArguments,
    at_once: AtOnce = 4,
    name: Name = "",
    models: Models = "both",
    protocol: Protocols = "both",
    input_: Annotated[Path | None, images_option("held-out cases of the model's run")] = None,
    spacing: o.Spacing = None,
    set_: ReadingSettings = None,
    cases: MaxCases = 20,
    send: Send = "volume",
    engine: Engine = None,
    dump: Dump = None,
    as_json: o.AsJson = False,
) -> None:
    """Compare the answers of a server with those of the model.

    Real cases are sent, and logits and label maps are compared. The exit status is 2 if a threshold is exceeded.
    """
    from decathlete.cli.progress import TerminalReporter, print_json
    from decathlete.serving.triton.verify import TritonVerifyOptions, triton_verify

    options = TritonVerifyOptions(
        name=name,
        models=models,
        send_as=send,
        clients=tuple(
            connection.to_options(each, at_once=at_once) for each in ("http", "grpc") if protocol in ("both", each)
        ),
        thresholds=thresholds.to_thresholds(),
        cases=cases,
        engine=engine,
        dump=dump,
    )
    report = triton_verify(
        model,
        inputs=input_,
        spacing=parse_spacing(spacing),
        image_formats=only_image_formats(set_),
        options=options,
        progress=TerminalReporter().cases("verify"),
    )
    if as_json:
        print_json(report)
    else:
        echo(report.table)
    _require_no_problems(report)


def _require_no_problems(report: VerificationReport) -> None:
    from decathlete.errors import TritonError

    if report.problems:
        lines = [*report.problems[:_PROBLEMS_SHOWN]]
        if len(report.problems) > len(lines):
            lines.append(f"and {len(report.problems) - len(lines)} more, which --json lists")
        raise TritonError(
            "the server does not compute what the model computes:\n  " + "\n  ".join(lines),
            remedy="export the model again, or widen the thresholds where a lower precision is wanted",
            code="E-TRITON-VERIFY",
        )


def benchmark(
    model: o.ModelArgument,
    connection: ConnectionArguments,
    measurement: MeasurementArguments,
    name: Name = "",
    models: OneModel = "network",
    protocol: Protocol = "grpc",
    input_: Annotated[Path | None, images_option("random numbers")] = None,
    spacing: o.Spacing = None,
    set_: ReadingSettings = None,
    output: Output = None,
) -> None:
    """Measure latency and throughput of a model on a server. Offline in batches, online with several clients."""
    from decathlete.cli.progress import TerminalReporter
    from decathlete.serving.triton.benchmark import triton_benchmark
    from decathlete.serving.triton.benchmark_files import to_markdown, write_benchmark

    report = triton_benchmark(
        model,
        inputs=input_,
        spacing=parse_spacing(spacing),
        image_formats=only_image_formats(set_),
        options=measurement.to_options(name=name, models=models, client=connection.to_options(protocol)),
        progress=TerminalReporter().cases("benchmark"),
    )
    echo(to_markdown(report).rstrip())
    if output is not None:
        paths = write_benchmark(report, output)
        echo(f"written to {', '.join(str(path) for path in paths)}")
