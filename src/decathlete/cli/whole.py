"""Commands that do everything: run, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decathlete.cli import options as o


def run(
    dataset: o.Dataset,
    dim: o.Dims = o.Dim.three,
    fold: Annotated[int, typer.Option(min=0, help="The fold that is held out.")] = 0,
    max_time: o.MaxTime = None,
    epochs: o.Epochs = None,
    steps_per_epoch: o.StepsPerEpoch = 250,
    data: o.Data = Path("data"),
    prepared: o.Prepared = Path("prepared"),
    results: o.Results = Path("results"),
    memory: o.Memory = 8.0,
    set_: o.Set = None,
    group_by: o.GroupBy = None,
    seed: o.Seed = 1,
    precision: Annotated[o.Precision, typer.Option(help="Arithmetic.")] = o.Precision.auto,
    device: o.Device = "auto",
    devices: o.Devices = 1,
    patience: o.Patience = None,
    tta: o.Tta = False,
    workers: o.Workers = 2,
    overwrite: o.Overwrite = False,
) -> None:
    """Everything in turn: check, plan, prepare, train, score, report, predict imagesTs. Run again to go on."""
    from decathlete.cli.show import TerminalListener
    from decathlete.workflows.preprocess import PlanOptions
    from decathlete.workflows.run import run as function
    from decathlete.workflows.train import train_config
    from decathlete.workflows.validate import PredictOptions
    from decathlete.workflows.workspace import Workspace

    result = function(
        dataset,
        dims=o.dims_of(dim),
        fold=fold,
        workspace=Workspace(data=data, prepared=prepared, results=results),
        plan_options=PlanOptions(memory_gb=memory, overrides=tuple(set_ or ()), group_by=group_by),
        config=train_config(
            max_time=max_time,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            seed=seed,
            precision=precision.value,
            device=device,
            devices=devices,
            patience=patience,
        ),
        predict_options=PredictOptions(device=device, precision=precision.value, tta=tta),
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
    folder: Annotated[Path, typer.Option(help="Where the demo's data and results go.")] = Path("demo"),
    max_time: Annotated[str, typer.Option(help="Training time.")] = "4m30s",
    workers: o.Workers = 2,
    overwrite: o.Overwrite = False,
) -> None:
    """No data needed: make a brain cohort, run everything on it, and say where the report is."""
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
