"""Commands ``evaluate`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decathlete.cli import options as o
from decathlete.cli.cluster_options import WorkerArguments
from decathlete.cli.component_settings import MetricAndFormatSettings, split_image_formats
from decathlete.cli.metric_options import Metrics, Tolerance, parse_metrics
from decathlete.cli.option_values import parse_spacing
from decathlete.cli.terminal import echo


def evaluate(
    context: typer.Context,
    preds: Annotated[Path, typer.Option("--preds", metavar="DIR", help="Folder of predicted label maps.")],
    lbls: Annotated[Path, typer.Option("--lbls", metavar="DIR", help="Folder of true label maps, same file names.")],
    case_workers: WorkerArguments,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", show_default="only printed", help="Folder for scores.json and scores.csv."
        ),
    ] = None,
    metrics: Metrics = None,
    tolerance: Tolerance = None,
    set_: MetricAndFormatSettings = None,
    spacing: o.Spacing = None,
    regions: o.Regions = None,
    regions_order: o.RegionsOrder = None,
    brats: o.Brats = False,
    annotated: o.AnnotatedFile = None,
    overwrite: o.Overwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Compare predicted label maps with the true ones. The scores are Dice, IoU, surface Dice, HD95 and volumes."""
    from decathlete.cli.progress import print_json
    from decathlete.core.regions import parse_order
    from decathlete.evaluation.evaluate import evaluate as evaluate_predictions

    image_formats, of_metrics = split_image_formats(set_)
    with case_workers.open(context) as workers:
        scores = evaluate_predictions(
            preds,
            lbls,
            output=output,
            overwrite=overwrite,
            spacing=parse_spacing(spacing),
            image_formats=image_formats,
            regions=regions,
            regions_order=parse_order(regions_order),
            brats=brats,
            annotated=annotated,
            metrics=parse_metrics(metrics, tolerance_mm=tolerance, settings=of_metrics),
            workers=workers,
        )
    if as_json:
        print_json(scores)
    else:
        echo(scores.table())
        echo(scores.headline_line())


def report(
    model: o.Model,
    dataset: o.RawDataset = None,
) -> None:
    """Write report.html of a run. It shows plan, curves, scores, and images of the best, median and worst case."""
    from decathlete.workflows.report import report as write_report

    echo(f"report in {write_report(model, dataset_root=dataset)}")
