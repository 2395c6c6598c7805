"""Commands that do everything: run, demo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from decathlete.cli import options as o
from decathlete.cli.groups import Fit, SweepArguments
from decathlete.cli.network import FullPlanArguments
from decathlete.cli.training import FullTrainArguments


def run(
    dataset: o.Dataset,
    plan: FullPlanArguments,
    training: FullTrainArguments,
    windows: SweepArguments,
    dim: o.Dims = "3",
    preset: o.Preset = None,
    fold: Annotated[int, typer.Option(metavar="FOLD", min=0, help="The fold that is held out, from 0.")] = 0,
    fit: Fit = True,
    data: o.Data = Path("data"),
    prepared: o.Prepared = Path("prepared"),
    results: o.Results = Path("results"),
    workers: o.Workers = 2,
    overwrite: o.Overwrite = False,
) -> None:
    """Do everything in turn, for one fold. Check, plan, prepare, train, score, report, predict imagesTs;
    run it again to go on."""
    from decathlete.cli.show import TerminalListener
    from decathlete.workflows.run import run as function
    from decathlete.workflows.workspace import Workspace

    result = function(
        dataset,
        dims=o.dims_of(dim),
        fold=fold,
        workspace=Workspace(data=data, prepared=prepared, results=results),
        plan_options=replace(plan.options(), preset=preset),
        config=training.config(preset=preset, dims=o.dims_of(dim)),
        fit=fit,
        predict_options=windows.options(device=training.device, precision=training.precision),
        workers=workers,
        overwrite=overwrite,
        listener=TerminalListener(),
    )
    typer.echo(f"report in {result.report}")
    if result.predictions:
        typer.echo(f"predictions in {result.predictions}")
    typer.echo(result.scores.headline_line())
    if result.failed_tests is not None:
        raise result.failed_tests


def demo(
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Where the demo's data and results go.")] = Path("demo"),
    max_time: Annotated[str, typer.Option(metavar="DURATION", help="Training time: 90s, 4m30s, 1h.")] = "4m30s",
    workers: o.Workers = 2,
    overwrite: o.Overwrite = False,
) -> None:
    """Run everything on a brain cohort that is made up. No data needed; in the end it says where the report is."""
    from decathlete.cli.show import TerminalListener
    from decathlete.core.durations import parse_duration
    from decathlete.workflows.demo import demo as function

    result = function(
        folder, max_time_s=parse_duration(max_time), workers=workers, overwrite=overwrite, listener=TerminalListener()
    )
    typer.echo(f"report in {result.run.report}")
    typer.echo(f"predictions in {result.run.predictions}")
    typer.echo(f"multi-level Otsu thresholding, flattered: mean Dice {result.thresholding_dice:.3f}")
    typer.echo(result.run.scores.headline_line())
