"""Commands about data: check, preprocess."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from decathlete.cli import options as o
from decathlete.cli.network import FullPlanArguments


def check(
    dataset: o.Dataset,
    group_by: o.GroupBy = None,
    regions: o.Regions = None,
    regions_order: o.RegionsOrder = None,
    brats: o.Brats = False,
    data: o.Data = Path("data"),
    workers: o.Workers = 2,
    as_json: o.AsJson = False,
) -> None:
    """List every problem of a dataset's files, with its remedy. Nothing is changed."""
    from decathlete.cli.show import TerminalListener, print_json
    from decathlete.core.regions import parse_order
    from decathlete.workflows.check import check as function
    from decathlete.workflows.workspace import Workspace

    report = function(
        dataset,
        workspace=Workspace(data=data),
        group_by=group_by,
        regions=regions,
        regions_order=parse_order(regions_order),
        brats=brats,
        workers=workers,
        progress=TerminalListener().cases("check"),
    )
    if as_json:
        print_json(report)
    else:
        typer.echo("\n".join(report.lines()))
    if not report.ok:
        raise typer.Exit(2)


def preprocess(
    task: o.Task,
    plan: FullPlanArguments,
    dim: o.Dims = "3",
    preset: o.Preset = None,
    data: o.Data = Path("data"),
    prepared: o.Prepared = Path("prepared"),
    workers: o.Workers = 2,
    overwrite: o.Overwrite = False,
) -> None:
    """Plan for a dataset and prepare every case. It is checked first; the plan and its reasons are printed."""
    from decathlete.cli.show import TerminalListener
    from decathlete.workflows.preprocess import preprocess_task
    from decathlete.workflows.workspace import Workspace

    listener = TerminalListener()
    store = preprocess_task(
        task,
        dims=o.dims_of(dim),
        workspace=Workspace(data=data, prepared=prepared),
        options=replace(plan.options(), preset=preset),
        workers=workers,
        overwrite=overwrite,
        on_plan=listener.plan,
        checking=listener.cases("check"),
        progress=listener.cases("prepare"),
    )
    typer.echo(f"{len(store.case_ids)} cases prepared in {store.folder}")
