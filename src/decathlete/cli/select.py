"""Command ``select``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decathlete.cli import options as o
from decathlete.cli.cluster_options import WorkerArguments
from decathlete.cli.component_settings import EngineSettings, engine_assignments
from decathlete.cli.metric_options import Metrics, parse_metrics
from decathlete.cli.prediction_options import DeviceArguments, PredictionArguments
from decathlete.cli.terminal import echo


def select(
    context: typer.Context,
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Results of a dataset (results/DATASET), or of the configurations to compare (results/DATASET/3d)."
        ),
    ],
    windows: PredictionArguments,
    device: DeviceArguments,
    case_workers: WorkerArguments,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            show_default="selected, in the folder of the configurations",
            help="Folder of the selected model and its report.",
        ),
    ] = None,
    max_members: o.MaxMembers = 10,
    group_by: o.GroupBy = None,
    metrics: Metrics = None,
    dataset: o.RawDataset = None,
    set_: EngineSettings = None,
    overwrite: o.Overwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Compare trained configurations and write the best model. Configurations and pairs of them are compared by their
    held-out cases, and post-processing is selected."""
    from decathlete.cli.progress import TerminalReporter, print_json
    from decathlete.workflows.selection.select import select as select_model

    with case_workers.open(context) as workers:
        result = select_model(
            results,
            output=output,
            dataset_root=dataset,
            options=device.to_predict_options(windows, engine_settings=engine_assignments(set_)),
            max_members=max_members,
            group_by=group_by,
            metrics=parse_metrics(metrics),
            workers=workers,
            overwrite=overwrite,
            reporter=TerminalReporter(),
        )
    if as_json:
        print_json(result.selection)
        return
    echo(result.summary())
    echo(f"\nmodel in {result.model}; report in {result.report}")
    echo(result.scores.headline_line())
