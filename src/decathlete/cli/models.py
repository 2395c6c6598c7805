"""Commands ``train``, ``validate`` and ``predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decathlete.cli import options as o
from decathlete.cli.advanced_training_options import FullTrainArguments
from decathlete.cli.cluster_options import WorkerArguments, open_cluster
from decathlete.cli.component_settings import (
    ENGINE,
    IMAGE_FORMAT,
    EngineAndFormatSettings,
    EngineAndMetricSettings,
    image_format_settings,
    reject_others,
)
from decathlete.cli.metric_options import Metrics, Tolerance, parse_metrics
from decathlete.cli.option_values import parse_fold, parse_spacing
from decathlete.cli.output_options import OutputArguments
from decathlete.cli.pipeline_options import ConfigurationArguments, WorkspaceArguments
from decathlete.cli.plan_options import Adapt, Set
from decathlete.cli.precedence import explicit_options
from decathlete.cli.prediction_options import DeviceArguments, PredictionArguments
from decathlete.cli.terminal import echo
from decathlete.core.assignments import split_assignments_of
from decathlete.core.choices import Grid


def train(
    context: typer.Context,
    task: o.Task,
    training: FullTrainArguments,
    configuration: ConfigurationArguments,
    folders: WorkspaceArguments,
    fold: o.Fold = None,
    nodes: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=o.MACHINE,
            help="Number of machines; torchrun or srun starts this command on each.",
        ),
    ] = 1,
    set_: Set = None,
    adapt: Adapt = True,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Resume a stopped run.")] = False,
    overwrite: o.Overwrite = False,
) -> None:
    """Train one fold of a prepared dataset."""
    from decathlete.cli.progress import TerminalReporter
    from decathlete.planning.configurations import dims_of
    from decathlete.workflows.assignments import split_assignments
    from decathlete.workflows.train import train as train_on_task

    which = configuration.choose(context)
    held_out = parse_fold(fold)
    assigned = split_assignments(set_ or ())
    result = train_on_task(
        task,
        configuration=which,
        fold=held_out,
        workspace=folders.to_workspace(),
        config=training.to_train_config(
            explicit_options(context),
            nodes=nodes,
            preset=configuration.preset,
            dims=dims_of(which),
            fold=held_out,
            assigned=assigned.train,
        ),
        overrides=assigned.plan,
        adapt=adapt,
        resume=resume,
        overwrite=overwrite,
        progress=TerminalReporter().training(),
    )
    echo(f"model in {result.folder}")


def validate(
    context: typer.Context,
    model: o.Model,
    windows: PredictionArguments,
    device: DeviceArguments,
    case_workers: WorkerArguments,
    dataset: o.RawDataset = None,
    metrics: Metrics = None,
    tolerance: Tolerance = None,
    set_: EngineAndMetricSettings = None,
    grid: Annotated[
        Grid,
        typer.Option(
            help="Grid of the scores: of the original files, or the resampled grid of the network (written "
            "to scores_prepared.json; not for publication)."
        ),
    ] = "original",
    overwrite: o.Overwrite = False,
    as_json: o.AsJson = False,
) -> None:
    """Predict and score the held-out cases of a model. By default, scores are on the original grids of the images."""
    from decathlete.cli.progress import TerminalReporter, print_json
    from decathlete.workflows.validate import validate as validate_model

    of_engine, of_metrics = split_assignments_of([ENGINE], set_ or ())
    with case_workers.open(context) as workers:
        scores = validate_model(
            model,
            dataset_root=dataset,
            options=device.to_predict_options(windows, engine_settings=of_engine),
            workers=workers,
            metrics=parse_metrics(metrics, tolerance_mm=tolerance, settings=of_metrics),
            grid=grid,
            overwrite=overwrite,
            progress=TerminalReporter().cases("predict"),
        )
    if as_json:
        print_json(scores)
    else:
        echo(scores.table())
        echo(scores.headline_line())


def predict(
    context: typer.Context,
    model: Annotated[
        list[Path],
        typer.Option(
            "--model",
            metavar="DIR",
            help="Model: folder of a run, a model or an exported program. Can be repeated, for an ensemble.",
        ),
    ],
    input_: Annotated[
        Path,
        typer.Option(
            "--input",
            "-i",
            metavar="PATH",
            help="Images: a file, a DICOM folder, a folder of images, a tree of mixed DICOM files, or cases prepared "
            "by `preprocess --mode`.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the predictions.")],
    windows: PredictionArguments,
    device: DeviceArguments,
    output_files: OutputArguments,
    cases: Annotated[
        int | None,
        typer.Option("--cases", metavar="N", min=1, show_default="all", help="Predict only the first N images."),
    ] = None,
    save_probabilities: Annotated[
        bool,
        typer.Option(
            "--save-probabilities/--no-save-probabilities",
            help="Also write the probabilities of each class (large files).",
        ),
    ] = False,
    spacing: o.Spacing = None,
    set_: EngineAndFormatSettings = None,
    cluster: o.Cluster = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Segment images. Each label map has the grid of its image, and a JSON file with volumes and provenance."""
    from decathlete.cli.progress import TerminalReporter
    from decathlete.workflows.predict import predict as predict_images

    of_engine, others = split_assignments_of([ENGINE], set_ or ())
    of_formats, unknown = split_assignments_of([IMAGE_FORMAT], others)
    reject_others(unknown, "engine.SETTING=VALUE or image_format.NAME.SETTING=VALUE")
    with open_cluster(context, cluster) as executor:
        predictions = predict_images(
            model,
            input_,
            output,
            options=device.to_predict_options(windows, engine_settings=of_engine),
            cases=cases,
            save_probabilities=save_probabilities,
            spacing=parse_spacing(spacing),
            kind=output_files.to_output_kind(image_format_settings(of_formats)),
            series=output_files.series or (),
            overwrite=overwrite,
            executor=executor,
            progress=TerminalReporter().cases("predict"),
        )
    echo(f"{len(predictions)} prediction{'s' * (len(predictions) != 1)} in {output}")
