"""Commands ``run`` and ``demo``, which run all steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from decathlete.cli import options as o
from decathlete.cli.advanced_training_options import FullTrainArguments
from decathlete.cli.cluster_options import open_workers
from decathlete.cli.config_file import explicit_options
from decathlete.cli.plain_folders import PlainFolderArguments
from decathlete.cli.plan_options import Adapt, FullPlanArguments
from decathlete.cli.prediction_options import SlidingWindowArguments
from decathlete.cli.terminal import echo
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.training.config import TrainConfig
    from decathlete.workflows.fold import PipelineOptions


def run(
    context: typer.Context,
    plan: FullPlanArguments,
    training: FullTrainArguments,
    windows: SlidingWindowArguments,
    folders: PlainFolderArguments,
    dataset: o.OptionalDataset = None,
    dim: o.Dims = "3",
    configuration: o.ConfigurationName = None,
    preset: o.Preset = None,
    fold: o.Fold = None,
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDS",
            show_default="one, --fold",
            help="Folds of a cross-validation: 0-4, 0,2 or 0- (every fold). --max-time applies to each fold.",
        ),
    ] = None,
    configurations: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            rich_help_panel=o.SELECTION,
            show_default="one, --configuration",
            help="Configurations to train and compare: auto (those that the images justify), or e.g. 2d,3d. The best "
            "one or pair becomes the model (see `decathlete select`).",
        ),
    ] = None,
    total_time: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            rich_help_panel=o.SELECTION,
            show_default="--max-time or --epochs of each fold",
            help="With --configurations: time of everything, 10h or 2d, divided among the trainings.",
        ),
    ] = None,
    max_members: o.MaxMembers = 10,
    adapt: Adapt = True,
    spacing: o.Spacing = None,
    data: o.Data = Path("data"),
    prepared: o.Prepared = Path("prepared"),
    results: o.Results = Path("results"),
    engine: o.Engine = "auto",
    metrics: o.Metrics = None,
    workers: o.Workers = 2,
    cluster: o.Cluster = None,
    fold_resources: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=AMOUNT,...",
            rich_help_panel=o.MACHINE,
            show_default="GPU=DEVICES on GPUs",
            help="With --cluster: what a Dask worker must offer for one fold, as in `dask worker --resources`: "
            "GPU=1,MEMORY=64e9.",
        ),
    ] = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Run all steps for one fold or several: check, plan, prepare, train, score, report, predict imagesTs. A stopped
    run is resumed when the command is repeated."""
    from decathlete.cli.progress import TerminalReporter
    from decathlete.cluster.resources import parse_resources
    from decathlete.planning.configurations import dims_of
    from decathlete.workflows.assignments import split_assignments
    from decathlete.workflows.workspace import Workspace

    if fold is not None and folds is not None:
        raise OptionError("--fold and --folds exclude each other", remedy="use one of them", code="E-OPTION-CONFLICT")
    if fold_resources is not None and cluster is None:
        raise OptionError(
            "--fold-resources has no effect without --cluster",
            remedy="leave it out, or use --cluster",
            code="E-OPTION-CONFLICT",
        )
    explicit = explicit_options(context)
    _check_selection_options(explicit, configurations)
    which = o.choose_configuration(context, configuration, dim)
    dims = dims_of(which)
    held_out = o.parse_fold(fold)
    assigned = split_assignments(plan.set_ or ())
    workspace, reporter = Workspace(data=data, prepared=prepared, results=results), TerminalReporter()
    options: PipelineOptions = {
        "dims": dims,
        "configuration": which,
        "workspace": workspace,
        "plan_options": replace(plan.to_plan_options(), preset=preset, overrides=assigned.plan),
        "spacing": o.parse_spacing(spacing),
        "config": training.to_train_config(
            explicit | ({} if total_time is None else {"max_time": total_time}),
            preset=preset,
            dims=dims,
            fold=held_out,
            assigned=assigned.train,
        ),
        "adapt": adapt,
        "predict_options": windows.to_predict_options(
            device=training.device, precision=training.precision, layout=training.layout, engine=engine
        ),
        "metrics": o.parse_metrics(metrics),
        "fold_resources": None if fold_resources is None else parse_resources(fold_resources),
        "overwrite": overwrite,
        "reporter": reporter,
    }
    task = folders.describe(
        dataset,
        workspace=workspace,
        group_by=plan.group_by,
        spacing=o.parse_spacing(spacing),
        overwrite=overwrite,
        reporter=reporter,
    )
    with open_workers(context, cluster, workers) as case_workers:
        options["workers"] = case_workers
        if configurations is not None:
            config_2d = training.to_train_config(
                explicit | ({} if total_time is None else {"max_time": total_time}),
                preset=preset,
                dims=2,
                assigned=assigned.train,
            )
            _run_configurations(
                task, configurations, folds, total_time, max_members, config_2d=config_2d, options=options
            )
        elif folds is None:
            _run_fold(task, held_out, options)
        else:
            _run_folds(task, folds, options)


def _check_selection_options(explicit: Mapping[str, Any], configurations: str | None) -> None:
    """Reject options that contradict ``--configurations``, or that have no effect without it."""
    if configurations is None:
        if useless := [name for name in ("total_time", "max_members") if name in explicit]:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in useless)
            raise OptionError(
                f"{flags} has no effect without --configurations",
                remedy="leave it out, or use --configurations auto",
                code="E-OPTION-CONFLICT",
            )
        return
    excluded = ["dim", "configuration", "fold", *(["max_time", "epochs"] if "total_time" in explicit else [])]
    if contradicting := [name for name in excluded if explicit.get(name) is not None]:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in contradicting)
        other = "--total-time" if contradicting[0] in ("max_time", "epochs") else "--configurations"
        raise OptionError(f"{flags} contradicts {other}", remedy=f"leave out {flags}", code="E-OPTION-CONFLICT")


def _run_configurations(
    dataset: str,
    configurations: str,
    folds: str | None,
    total_time: str | None,
    max_members: int,
    *,
    config_2d: TrainConfig,
    options: PipelineOptions,
) -> None:
    from decathlete.cli.jobs_table import JobsReporter
    from decathlete.core.durations import parse_duration
    from decathlete.workflows.run_configurations import run_configurations

    options["reporter"] = JobsReporter()
    result = run_configurations(
        dataset,
        configurations=configurations,
        folds=folds,
        total_time_s=None if total_time is None else parse_duration(total_time),
        max_members=max_members,
        config_2d=config_2d,
        **options,
    )
    selection = result.selection
    echo(selection.summary())
    echo(f"\nmodel in {selection.model}; report in {selection.report}")
    if result.predictions:
        echo(f"predictions in {result.predictions}")
    echo(selection.scores.headline_line())
    if result.failed_tests is not None:
        raise result.failed_tests


def _run_fold(dataset: str, fold: int | Literal["all"], options: PipelineOptions) -> None:
    from decathlete.workflows.run import run as run_pipeline

    result = run_pipeline(dataset, fold=fold, **options)
    echo(f"report in {result.report}")
    if result.predictions:
        echo(f"predictions in {result.predictions}")
    echo(result.headline_line())
    if result.failed_tests is not None:
        raise result.failed_tests


def _run_folds(dataset: str, folds: str, options: PipelineOptions) -> None:
    from decathlete.workflows.cross_validate import cross_validate as run_cross_validation

    result = run_cross_validation(dataset, folds=folds, **options)
    echo(result.scores.table())
    echo(f"\nreport in {result.report}; reports of the folds in {result.folder}/fold_<k>/report.html")
    if result.predictions:
        echo(f"predictions in {result.predictions}")
    echo(result.scores.headline_line())
    if failure := result.failed_folds or result.failed_tests:
        raise failure


def demo(
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the demo's data and results.")] = Path("demo"),
    max_time: Annotated[str, typer.Option(metavar="DURATION", help="Training time: 90s, 4m30s, 1h.")] = "4m30s",
    workers: o.Workers = 2,
    overwrite: o.Overwrite = False,
) -> None:
    """Run all steps on a synthetic brain dataset. No data are needed; the path of the report is printed at the end."""
    from decathlete.cli.progress import TerminalReporter
    from decathlete.core.durations import parse_duration
    from decathlete.workflows.demo import demo as run_demo

    result = run_demo(
        folder, max_time_s=parse_duration(max_time), workers=workers, overwrite=overwrite, reporter=TerminalReporter()
    )
    echo(f"report in {result.run.report}")
    echo(f"predictions in {result.run.predictions}")
    echo(f"multi-level Otsu thresholding, with the best assignment of levels: mean Dice {result.thresholding_dice:.3f}")
    echo(result.run.headline_line())
