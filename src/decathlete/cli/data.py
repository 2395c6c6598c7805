"""Commands about data: check, preprocess."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decathlete.cli import options as o


def check(
    dataset: o.Dataset,
    data: o.Data = Path("data"),
    workers: o.Workers = 2,
    group_by: o.GroupBy = None,
    as_json: o.AsJson = False,
) -> None:
    """Look at every file of a dataset and list all problems with their remedies; nothing is changed."""
    from decathlete.cli.show import TerminalListener, print_json
    from decathlete.dataset.check import check_dataset
    from decathlete.dataset.manifest import read_dataset, resolve_task

    spec = read_dataset(resolve_task(dataset, data), group_by=group_by)
    report = check_dataset(spec, workers=workers, progress=TerminalListener().cases("check"))
    if as_json:
        print_json(report)
    else:
        typer.echo("\n".join(report.lines()))
    if not report.ok:
        raise typer.Exit(2)


def preprocess(
    task: o.Task,
    dim: o.Dims = o.Dim.three,
    data: o.Data = Path("data"),
    prepared: o.Prepared = Path("prepared"),
    memory: o.Memory = 8.0,
    orientation: Annotated[
        o.Orient, typer.Option(help="Work in RAS order, or as the files store.")
    ] = o.Orient.canonical,
    order: Annotated[
        o.StepOrder, typer.Option(help="Normalise then resample, or the recipe's order.")
    ] = o.StepOrder.nnunet,
    block: Annotated[o.Block, typer.Option(help="Encoder blocks.")] = o.Block.plain,
    norm: Annotated[o.Norm, typer.Option(help="Normalisation layers.")] = o.Norm.instance,
    n_folds: Annotated[int, typer.Option("--folds", min=2, help="Folds of the split.")] = 5,
    set_: o.Set = None,
    group_by: o.GroupBy = None,
    workers: o.Workers = 2,
    overwrite: o.Overwrite = False,
) -> None:
    """Check a dataset, plan for it, and prepare every case; the plan and its reasons are printed."""
    from decathlete.cli.show import TerminalListener
    from decathlete.workflows.preprocess import PlanOptions, preprocess_task
    from decathlete.workflows.workspace import Workspace

    workspace = Workspace(data=data, prepared=prepared)
    listener = TerminalListener()
    store = preprocess_task(
        task,
        dims=o.dims_of(dim),
        workspace=workspace,
        options=PlanOptions(
            memory_gb=memory,
            orientation=orientation.value,
            order=order.value,
            block=block.value,
            norm=norm.value,
            n_folds=n_folds,
            overrides=tuple(set_ or ()),
            group_by=group_by,
        ),
        workers=workers,
        overwrite=overwrite,
        on_plan=listener.plan,
        checking=listener.cases("check"),
        progress=listener.cases("prepare"),
    )
    typer.echo(f"{len(store.case_ids)} cases prepared in {store.folder}")
