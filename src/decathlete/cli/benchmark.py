"""The command that measures: benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from decathlete.cli import options as o
from decathlete.cli.network import NetworkArguments
from decathlete.cli.shared_groups import PLAN, Set, SweepArguments
from decathlete.core.choices import BenchmarkMode
from decathlete.planning.options import PlanOptions

if TYPE_CHECKING:
    from decathlete.benchmarking.options import BenchmarkOptions

MEASUREMENT = "Measurement"


@dataclass(frozen=True, kw_only=True)
class WorkArguments(NetworkArguments):
    """What is computed: data, patch and network."""

    dim: o.Dims = "3"
    task: Annotated[
        str,
        typer.Option(
            "--task", help="Decathlon task (01 to 12) whose patch size the random data have; with --real any dataset."
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

    def chosen(self) -> dict[str, Any]:
        """As fields of :class:`BenchmarkOptions`."""
        return {
            "dims": o.dims_of(self.dim),
            "task": self.task,
            "real": self.real,
            "batch_size": self.batch_size,
            "patch": o.numbers_of(self.patch, flag="--patch"),
            "plan": self.network_options(PlanOptions(overrides=tuple(self.set_ or ()))),
        }


@dataclass(frozen=True, kw_only=True)
class MeasureArguments:
    """How it is measured."""

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

    def chosen(self) -> dict[str, Any]:
        """As fields of :class:`BenchmarkOptions`."""
        return vars(self) | {"shape": o.numbers_of(self.shape, flag="--shape")}


def benchmark(
    mode: Annotated[BenchmarkMode, typer.Option(help="What is measured: training steps or predictions.")],
    work: WorkArguments,
    windows: SweepArguments,
    measured: MeasureArguments,
    data: o.Data = Path("data"),
    prepared: o.Prepared = Path("prepared"),
    results: o.Results = Path("results"),
    as_json: o.AsJson = False,
) -> None:
    """Measure training steps or predictions. Throughput, latency and memory go to the screen and to a dated JSON in
    the results' benchmarks folder."""
    from decathlete.benchmarking.run import benchmark as function
    from decathlete.cli.progress import print_json
    from decathlete.workflows.workspace import Workspace

    result = function(
        benchmark_options(mode, work, windows, measured),
        workspace=Workspace(data=data, prepared=prepared, results=results),
    )
    if as_json:
        print_json(result.record)
        return
    typer.echo(result.record.lines())
    typer.echo(f"written to {result.path}")
    if result.trace is not None:
        typer.echo(f"trace in {result.trace}")


def benchmark_options(
    mode: BenchmarkMode, work: WorkArguments, windows: SweepArguments, measured: MeasureArguments
) -> BenchmarkOptions:
    """What the command line says, as the Python function takes it."""
    from decathlete.benchmarking.options import BenchmarkOptions

    return BenchmarkOptions(mode=mode, **work.chosen(), **vars(windows), **measured.chosen())
