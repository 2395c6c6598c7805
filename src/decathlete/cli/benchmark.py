"""Command ``benchmark``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from decathlete.cli import options as o
from decathlete.cli.option_values import parse_dims, parse_integers
from decathlete.cli.pipeline_options import WorkspaceArguments
from decathlete.cli.plan_options import PLAN, NetworkArguments, Set
from decathlete.cli.prediction_options import SlidingWindowArguments
from decathlete.cli.terminal import echo
from decathlete.core.choices import BenchmarkMode
from decathlete.planning.options import PlanOptions

MEASUREMENT = "Measurement"


@dataclass(frozen=True, kw_only=True)
class WorkloadArguments(NetworkArguments):
    """Options of the workload: data, patch and network."""

    dim: o.Dims = "3"
    task: Annotated[
        str,
        typer.Option(
            "--task",
            help="Decathlon task (01 to 12) that sets the patch size of the random data; with --real: any dataset.",
        ),
    ] = "01"
    real: Annotated[
        bool,
        typer.Option("--real/--no-real", help="Use the task's prepared data and plan instead of random numbers."),
    ] = False
    batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default="2 in 3D, 16 in 2D; with --real the plan's",
            help="Patches (2D: slices) per batch and device.",
        ),
    ] = None
    patch: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X", show_default="the task's", rich_help_panel=PLAN, help="Patch size, voxels; 2D: Y,X."
        ),
    ] = None
    set_: Set = None

    def to_fields(self) -> dict[str, Any]:
        """Return the options as fields of :class:`BenchmarkOptions`."""
        return {
            "dims": parse_dims(self.dim),
            "task": self.task,
            "real": self.real,
            "batch_size": self.batch_size,
            "patch": parse_integers(self.patch, flag="--patch"),
            "plan": self.apply_to(PlanOptions(overrides=tuple(self.set_ or ()))),
        }


@dataclass(frozen=True, kw_only=True)
class MeasurementArguments:
    """Options of the measurement."""

    augment: Annotated[bool, typer.Option("--augment/--no-augment", help="With train: augment the patches.")] = False
    volumes: Annotated[
        bool,
        typer.Option(
            "--volumes/--no-volumes", help="With predict: whole volumes by sliding windows instead of single batches."
        ),
    ] = False
    shape: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", show_default="155,240,240", help="Shape of the random volumes, voxels."),
    ] = None
    warmup: Annotated[
        int,
        typer.Option(metavar="N", min=1, rich_help_panel=MEASUREMENT, help="Number of warm-up steps."),
    ] = 5
    steps: Annotated[
        int, typer.Option(metavar="N", min=1, rich_help_panel=MEASUREMENT, help="Number of measured steps.")
    ] = 50
    profile: Annotated[
        bool,
        typer.Option(
            "--profile/--no-profile",
            rich_help_panel=MEASUREMENT,
            help="Profile a few more steps and write a Chrome trace.",
        ),
    ] = False
    amp: Annotated[
        bool,
        typer.Option(
            "--amp/--no-amp",
            rich_help_panel=o.MACHINE,
            help="Mixed precision: fp16 on CUDA, else bf16. --precision is more specific.",
        ),
    ] = False
    compile: o.Compile = False
    precision: o.Precision = "auto"
    layout: o.Layout = "auto"
    device: o.Device = "auto"
    devices: o.Devices = 1

    def to_fields(self) -> dict[str, Any]:
        """Return the options as fields of :class:`BenchmarkOptions`."""
        return vars(self) | {"shape": parse_integers(self.shape, flag="--shape")}


def benchmark(
    mode: Annotated[BenchmarkMode, typer.Option(help="Subject of the measurement: training steps or predictions.")],
    workload: WorkloadArguments,
    windows: SlidingWindowArguments,
    measurement: MeasurementArguments,
    folders: WorkspaceArguments,
    as_json: o.AsJson = False,
) -> None:
    """Measure training steps or predictions. Throughput, latency and memory go to the screen and to a dated JSON in
    the results' benchmarks folder."""
    from decathlete.benchmarking.options import BenchmarkOptions
    from decathlete.benchmarking.run import benchmark as run_benchmark
    from decathlete.cli.progress import print_json
    from decathlete.core.sliding_window import SlidingWindow

    window = SlidingWindow(**vars(windows))
    result = run_benchmark(
        BenchmarkOptions(mode=mode, **workload.to_fields(), window=window, **measurement.to_fields()),
        workspace=folders.to_workspace(),
    )
    if as_json:
        print_json(result.record)
        return
    echo(result.record.lines())
    echo(f"written to {result.path}")
    if result.trace is not None:
        echo(f"trace in {result.trace}")
