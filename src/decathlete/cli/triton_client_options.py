"""Options of ``triton verify`` and ``triton benchmark``: one dataclass for each section of their help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from decathlete.cli.option_values import parse_integers

if TYPE_CHECKING:
    from decathlete.serving.triton.benchmark import TritonBenchmarkOptions
    from decathlete.serving.triton.load import LoadOptions
    from decathlete.serving.triton.protocol import ClientOptions
    from decathlete.serving.triton.verify import Thresholds

THRESHOLDS, CONNECTION, MEASUREMENT = "Thresholds", "Connection", "Measurement"


def name_option(help_: str, *, panel: str | None = None) -> Any:
    """Return the option for the name of the models; by default it is the dataset's."""
    return typer.Option("--name", metavar="NAME", show_default="the dataset's", rich_help_panel=panel, help=help_)


def warmup_option(help_: str, *, panel: str) -> Any:
    """Return the option for the number of requests before those that count."""
    return typer.Option("--warmup-requests", metavar="N", min=0, rich_help_panel=panel, help=help_)


Name = Annotated[str, name_option("Name of the models on the server, without _network and _pipeline.")]
AtOnce = Annotated[
    int,
    typer.Option(
        "--at-once", metavar="N", min=1, rich_help_panel=CONNECTION, help="Maximum number of concurrent requests."
    ),
]


def images_option(default: str) -> Any:
    """Return the option for images to send; ``default`` says what is sent without it."""
    return typer.Option(
        "--input", "-i", metavar="PATH", show_default=default, help="Images to send: a file or a folder of images."
    )


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

    def to_options(self, protocol: Literal["http", "grpc"], *, at_once: int = 1) -> ClientOptions:
        """Return the options of a client with at most ``at_once`` requests under way."""
        from decathlete.serving.triton.protocol import ClientOptions

        return ClientOptions(
            protocol=protocol,
            address=self.http if protocol == "http" else self.grpc,
            at_once=at_once,
            timeout_s=self.timeout,
            retries=self.retries,
        )


@dataclass(frozen=True, kw_only=True)
class ThresholdArguments:
    """Limits of the differences between server and model."""

    max_logit_difference: Annotated[
        float,
        typer.Option(
            "--max-logit-difference",
            metavar="SHARE",
            min=0,
            rich_help_panel=THRESHOLDS,
            help="Maximum difference of logits, as a share of the largest logit.",
        ),
    ] = 1e-4
    max_changed: Annotated[
        float,
        typer.Option(
            "--max-changed",
            metavar="SHARE",
            min=0,
            rich_help_panel=THRESHOLDS,
            help="Share of all voxels whose label may differ.",
        ),
    ] = 1e-5
    max_margin: Annotated[
        float,
        typer.Option(
            "--max-margin",
            metavar="PROBABILITY",
            min=0,
            rich_help_panel=THRESHOLDS,
            help="Maximum difference between the probabilities of the two best classes in such voxels.",
        ),
    ] = 1e-4
    min_dice: Annotated[
        float,
        typer.Option(
            "--min-dice",
            metavar="DICE",
            min=0,
            max=1,
            rich_help_panel=THRESHOLDS,
            help="Minimum Dice of each structure.",
        ),
    ] = 0.999

    def to_thresholds(self) -> Thresholds:
        """Return the thresholds of a verification."""
        from decathlete.serving.triton.verify import Thresholds

        return Thresholds(
            logits=self.max_logit_difference, changed=self.max_changed, margin=self.max_margin, dice=self.min_dice
        )


@dataclass(frozen=True, kw_only=True)
class MeasurementArguments:
    """What a benchmark measures, and how long."""

    batch_sizes: Annotated[
        str | None,
        typer.Option(
            "--batch-sizes",
            metavar="N,N",
            show_default="1,2,4 for a network",
            rich_help_panel=MEASUREMENT,
            help="Offline: windows in each request of one client.",
        ),
    ] = None
    clients: Annotated[
        str,
        typer.Option(
            "--clients",
            metavar="N,N",
            rich_help_panel=MEASUREMENT,
            help="Online: numbers of clients that send single windows or images.",
        ),
    ] = "1,2,4"
    shared_memory: Annotated[
        Literal["none", "system", "cuda"],
        typer.Option(
            "--shared-memory",
            rich_help_panel=MEASUREMENT,
            help="Put tensors into memory that a server on this machine shares, of the system or of a GPU, instead of "
            "the connection.",
        ),
    ] = "none"
    warmup: Annotated[int, warmup_option("Requests of each client that are not measured.", panel=MEASUREMENT)] = 2
    window: Annotated[
        float,
        typer.Option(
            "--window", metavar="S", min=0.1, rich_help_panel=MEASUREMENT, help="Length of a measurement window, s."
        ),
    ] = 5.0
    stability: Annotated[
        float,
        typer.Option(
            "--stability",
            metavar="SHARE",
            min=0,
            rich_help_panel=MEASUREMENT,
            help="The measurement ends when three windows agree within this share.",
        ),
    ] = 0.1
    max_windows: Annotated[
        int,
        typer.Option(
            "--max-windows",
            metavar="N",
            min=1,
            rich_help_panel=MEASUREMENT,
            help="Windows after which the measurement ends, even if they do not agree.",
        ),
    ] = 10

    def to_options(
        self, *, name: str, models: Literal["network", "pipeline"], client: ClientOptions
    ) -> TritonBenchmarkOptions:
        """Return the options of a benchmark."""
        from decathlete.serving.triton.benchmark import TritonBenchmarkOptions

        sizes = parse_integers(self.batch_sizes, flag="--batch-sizes")
        return TritonBenchmarkOptions(
            name=name,
            kind=models,
            client=client,
            batch_sizes=None if sizes is None else tuple(sizes),
            clients=tuple(parse_integers(self.clients, flag="--clients") or ()),
            shared_memory=self.shared_memory,
            load=self._to_load(),
        )

    def _to_load(self) -> LoadOptions:
        from decathlete.serving.triton.load import LoadOptions

        return LoadOptions(
            warmup=self.warmup, window_s=self.window, stability=self.stability, max_windows=self.max_windows
        )
