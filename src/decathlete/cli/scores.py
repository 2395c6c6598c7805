"""Commands about results: evaluate, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decathlete.cli import options as o


def evaluate(
    preds: Annotated[Path, typer.Option("--preds", help="Folder of predicted label maps.")],
    lbls: Annotated[Path, typer.Option("--lbls", help="Folder of true label maps, same file names.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for scores.json and scores.csv.")
    ] = None,
    tolerance: o.Tolerance = 1.0,
    workers: o.Workers = 2,
    overwrite: o.Overwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Score a folder of predictions against true label maps: Dice, IoU, HD95, surface Dice, volumes."""
    from decathlete.cli.show import print_json
    from decathlete.core.files import writable_folder
    from decathlete.evaluation.evaluate import evaluate as function
    from decathlete.workflows.kept_scores import save_scores

    if output:
        writable_folder(output)
    scores = function(preds, lbls, tolerance_mm=tolerance, workers=workers)
    if output:
        save_scores(scores, output, overwrite=overwrite)
    if as_json:
        print_json(scores)
    else:
        typer.echo(scores.table())
        typer.echo(scores.headline_line())


def report(
    model: o.Model,
    dataset: Annotated[Path | None, typer.Option(help="The raw dataset, if it moved since training.")] = None,
) -> None:
    """Write report.html of a run: plan, curves, scores, and pictures of the best, median and worst case."""
    from decathlete.workflows.report import make_report
    from decathlete.workflows.validate import run_folder_of

    typer.echo(f"report in {make_report(run_folder_of(model), dataset_root=dataset)}")
