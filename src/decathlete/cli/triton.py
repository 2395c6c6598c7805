"""Commands ``triton start``, ``triton verify`` and ``triton benchmark``."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from decathlete.cli import options as o
from decathlete.cli.terminal import echo
from decathlete.cli.triton_options import Models

if TYPE_CHECKING:
    from decathlete.serving.triton.client import ClientOptions

THRESHOLDS, CONNECTION, MEASUREMENT = "Thresholds", "Connection", "Measurement"
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A run's folder, or the model folder in it.")]
Name = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="NAME",
        show_default="the dataset's",
        help="Name of the models on the server, without _network and _pipeline.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ConnectionArguments:
    """How requests are sent."""

    http: Annotated[
        str,
        typer.Option("--http", metavar="HOST:PORT", rich_help_panel=CONNECTION, help="Address of the HTTP service."),
    ] = "127.0.0.1:8000"
    grpc: Annotated[
        str,
        typer.Option("--grpc", metavar="HOST:PORT", rich_help_panel=CONNECTION, help="Address of the gRPC service."),
    ] = "127.0.0.1:8001"
    at_once: Annotated[
        int,
        typer.Option(
            "--at-once", metavar="N", min=1, rich_help_panel=CONNECTION, help="Most requests under way at a time."
        ),
    ] = 4
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="S", min=0.001, rich_help_panel=CONNECTION, help="Time limit of a request, s."
        ),
    ] = 300.0
    retries: Annotated[
        int,
        typer.Option(
            "--retries",
            metavar="N",
            min=0,
            rich_help_panel=CONNECTION,
            help="Times that a request is sent again after the connection failed or the time limit passed.",
        ),
    ] = 2

    def to_options(self, protocol: Literal["http", "grpc"]) -> ClientOptions:
        """Return the options of a client."""
        from decathlete.serving.triton.client import ClientOptions

        return ClientOptions(
            protocol=protocol,
            address=self.http if protocol == "http" else self.grpc,
            at_once=self.at_once,
            timeout_s=self.timeout,
            retries=self.retries,
        )


def start(
    repository: Annotated[Path, typer.Argument(metavar="REPOSITORY", help="Folder that `export triton` wrote.")],
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen at; 0.0.0.0: every one.")
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option("--http-port", metavar="PORT", help="Port of the HTTP service.")] = 8000,
    grpc_port: Annotated[int, typer.Option("--grpc-port", metavar="PORT", help="Port of the gRPC service.")] = 8001,
    metrics_port: Annotated[
        int, typer.Option("--metrics-port", metavar="PORT", help="Port of the Prometheus metrics.")
    ] = 8002,
    model_control: Annotated[
        Literal["none", "poll", "explicit"],
        typer.Option(
            "--model-control",
            help="none: load all models; poll: follow changes of the repository; explicit: load those of --load, and "
            "let clients load and unload.",
        ),
    ] = "none",
    load: Annotated[
        list[str] | None,
        typer.Option("--load", metavar="NAME", help="Model to load, with explicit. May be given several times."),
    ] = None,
    server: Annotated[
        Path | None,
        typer.Option(
            "--server",
            metavar="PATH",
            show_default="found on PATH, or in .venv-triton",
            help="Program tritonserver, or a Python environment with nvidia-pytriton.",
        ),
    ] = None,
) -> None:
    """Start Triton Inference Server for a model repository, and run it until ctrl-C."""
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
    model: Model,
    connection: ConnectionArguments,
    name: Name = "",
    models: Models = "both",
    protocol: Annotated[
        Literal["both", "http", "grpc"], typer.Option("--protocol", help="Protocol of the requests.")
    ] = "both",
    input_: Annotated[
        Path | None,
        typer.Option(
            "--input",
            "-i",
            metavar="PATH",
            show_default="held-out cases of the model's run",
            help="Images to send: a file or a folder of images.",
        ),
    ] = None,
    cases: Annotated[
        int, typer.Option("--max-cases", metavar="N", min=1, help="Number of cases that are sent, at most.")
    ] = 20,
    send: Annotated[
        Literal["volume", "file"], typer.Option("--send", help="How the pipeline receives an image: array or file.")
    ] = "volume",
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="NAME",
            show_default="that of the pipeline",
            help="Inference engine here that the pipeline is compared with.",
        ),
    ] = None,
    dump: Annotated[
        Path | None,
        typer.Option("--dump", metavar="DIR", show_default="none", help="Folder for inputs and outputs as .npz files."),
    ] = None,
    max_logit_difference: Annotated[
        float,
        typer.Option(
            "--max-logit-difference",
            min=0,
            rich_help_panel=THRESHOLDS,
            help="Greatest difference of logits, share of the greatest logit.",
        ),
    ] = 1e-4,
    max_changed: Annotated[
        float,
        typer.Option(
            "--max-changed",
            min=0,
            rich_help_panel=THRESHOLDS,
            help="Share of all voxels whose label may differ.",
        ),
    ] = 1e-5,
    max_margin: Annotated[
        float,
        typer.Option(
            "--max-margin",
            min=0,
            rich_help_panel=THRESHOLDS,
            help="Greatest difference between the probabilities of the two best classes in such voxels.",
        ),
    ] = 1e-4,
    min_dice: Annotated[
        float,
        typer.Option("--min-dice", min=0, max=1, rich_help_panel=THRESHOLDS, help="Least Dice of a structure."),
    ] = 0.999,
    as_json: o.AsJson = False,
) -> None:
    """Send real cases to a server, and compare its logits and label maps with those of the model here.

    The exit status is 2 if a threshold is exceeded.
    """
    from decathlete.cli.progress import TerminalReporter, print_json
    from decathlete.errors import TritonError
    from decathlete.serving.triton.verify import Thresholds, TritonVerifyOptions, triton_verify

    report = triton_verify(
        model,
        inputs=input_,
        options=TritonVerifyOptions(
            name=name,
            models=models,
            send_as=send,
            clients=tuple(connection.to_options(each) for each in ("http", "grpc") if protocol in ("both", each)),
            thresholds=Thresholds(logits=max_logit_difference, changed=max_changed, margin=max_margin, dice=min_dice),
            cases=cases,
            engine=engine,
            dump=dump,
        ),
        progress=TerminalReporter().cases("verify"),
    )
    if as_json:
        print_json(report)
    else:
        echo(report.table)
    if report.problems:
        raise TritonError(
            "the server does not compute what the model computes:\n  " + "\n  ".join(report.problems),
            remedy="export the model again, or widen the thresholds where a lower precision is wanted",
            code="E-TRITON-VERIFY",
        )


def benchmark(
    model: Model,
    connection: ConnectionArguments,
    name: Name = "",
    models: Annotated[
        Literal["network", "pipeline"], typer.Option("--models", help="Network or pipeline.")
    ] = "network",
    protocol: Annotated[Literal["http", "grpc"], typer.Option("--protocol", help="Protocol of the requests.")] = "grpc",
    input_: Annotated[
        Path | None,
        typer.Option(
            "--input",
            "-i",
            metavar="PATH",
            show_default="random numbers",
            help="Images to send: a file or a folder of images.",
        ),
    ] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            "--batch-sizes",
            metavar="N,N",
            show_default="1,2,4 for a network",
            rich_help_panel=MEASUREMENT,
            help="Offline: windows in each request of one client.",
        ),
    ] = None,
    clients: Annotated[
        str,
        typer.Option(
            "--clients",
            metavar="N,N",
            rich_help_panel=MEASUREMENT,
            help="Online: numbers of clients that send single windows or images.",
        ),
    ] = "1,2,4",
    shared_memory: Annotated[
        Literal["none", "system"],
        typer.Option(
            "--shared-memory",
            rich_help_panel=MEASUREMENT,
            help="Put tensors into the system's shared memory (server on this machine) instead of the connection.",
        ),
    ] = "none",
    warmup: Annotated[
        int,
        typer.Option(
            "--warmup-requests",
            metavar="N",
            min=0,
            rich_help_panel=MEASUREMENT,
            help="Requests of each client that are not measured.",
        ),
    ] = 2,
    window: Annotated[
        float,
        typer.Option(
            "--window", metavar="S", min=0.1, rich_help_panel=MEASUREMENT, help="Length of a measurement window, s."
        ),
    ] = 5.0,
    stability: Annotated[
        float,
        typer.Option(
            "--stability",
            min=0,
            rich_help_panel=MEASUREMENT,
            help="The measurement ends when three windows agree within this share.",
        ),
    ] = 0.1,
    max_windows: Annotated[
        int,
        typer.Option(
            "--max-windows",
            metavar="N",
            min=1,
            rich_help_panel=MEASUREMENT,
            help="Windows after which the measurement ends, even if they do not agree.",
        ),
    ] = 10,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            show_default="none",
            help="Folder for benchmark.csv, .json, .md and .png.",
        ),
    ] = None,
) -> None:
    """Measure latency and throughput of a model on a server: offline in batches, and online with several clients."""
    from decathlete.cli.progress import TerminalReporter
    from decathlete.serving.triton.benchmark import TritonBenchmarkOptions, triton_benchmark
    from decathlete.serving.triton.benchmark_files import to_markdown, write_benchmark
    from decathlete.serving.triton.load import LoadOptions

    sizes = o.parse_integers(batch_sizes, flag="--batch-sizes")
    report = triton_benchmark(
        model,
        inputs=input_,
        options=TritonBenchmarkOptions(
            name=name,
            kind=models,
            client=connection.to_options(protocol),
            batch_sizes=None if sizes is None else tuple(sizes),
            clients=tuple(o.parse_integers(clients, flag="--clients") or ()),
            shared_memory=shared_memory == "system",
            load=LoadOptions(warmup=warmup, window_s=window, stability=stability, max_windows=max_windows),
        ),
        progress=TerminalReporter().cases("benchmark"),
    )
    echo(to_markdown(report).rstrip())
    if output is not None:
        paths = write_benchmark(report, output)
        echo(f"written to {', '.join(str(path) for path in paths)}")


COMMANDS: dict[str, Callable[..., None]] = {"start": start, "verify": verify, "benchmark": benchmark}
