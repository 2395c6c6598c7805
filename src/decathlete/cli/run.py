"""Commands ``run`` and ``demo``, which run all steps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from decathlete.cli import options as o
from decathlete.cli.advanced_training_options import FullTrainArguments
from decathlete.cli.cluster_options import WorkerArguments
from decathlete.cli.component_settings import ENGINE, choose_engine, split_image_formats
from decathlete.cli.metric_options import Metrics, parse_metrics
from decathlete.cli.option_values import parse_fold, parse_spacing
from decathlete.cli.pipeline_options import ConfigurationArguments, SelectionArguments, WorkspaceArguments
from decathlete.cli.plain_folders import PlainFolderArguments
from decathlete.cli.plan_options import Adapt, FullPlanArguments
from decathlete.cli.precedence import explicit_options
from decathlete.cli.prediction_options import Engine, SlidingWindowArguments
from decathlete.cli.terminal import echo
from decathlete.core.assignments import split_assignments_of
from decathlete.errors import OptionError

if TYPE_CHECKING:
    from decathlete.training.config import TrainConfig
    from decathlete.workflows.fold import PipelineOptions

Folds = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDS",
        show_default="one, --fold",
        help="Folds of a cross-validation: 0-4, 0,2 or 0- (every fold). --max-time applies to each fold.",
    ),
]
FoldResources = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=AMOUNT,...",
        rich_help_panel=o.MACHINE,
        show_default="GPU=DEVICES on GPUs",
        help="With --cluster: what a Dask worker must offer for one fold, as in `dask worker --resources`: "
        "GPU=1,MEMORY=64e9.",
    ),
]


def run(
    context: typer.Context,
    plan: FullPlanArguments,
    training: FullTrainArguments,
    windows: SlidingWindowArguments,
    plain_folders: PlainFolderArguments,
    configuration: ConfigurationArguments,
    selection: SelectionArguments,
    folders: WorkspaceArguments,
    case_workers: WorkerArguments,
    dataset: o.OptionalDataset = None,
    fold: o.Fold = None,
    folds: Folds = None,
    adapt: Adapt = True,
    spacing: o.Spacing = None,
    engine: Engine = "auto",
    metrics: Metrics = None,
    fold_resources: FoldResources = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Run all steps for one fold or several. The steps are: check, plan, prepare, train, score, report, predict
    imagesTs. A stopped run is resumed when the command is repeated."""
    from decathlete.cli.progress import TerminalReporter
    from decathlete.cluster.resources import parse_resources
    from decathlete.planning.configurations import dims_of
    from decathlete.workflows.assignments import split_assignments

    explicit = explicit_options(context)
    _reject_conflicts(fold, folds, fold_resources, case_workers.cluster)
    selection.check(explicit)
    which, held_out = configuration.choose(context), parse_fold(fold)
    image_formats, assignments = split_image_formats(plan.set_)
    of_engine, others = split_assignments_of([ENGINE], assignments)
    assigned = split_assignments(others)
    if selection.total_time is not None:
        explicit |= {"max_time": selection.total_time}
    make_config = partial(training.to_train_config, explicit, preset=configuration.preset, assigned=assigned.train)
    reporter = TerminalReporter()
    options: PipelineOptions = {
        "dims": dims_of(which),
        "configuration": which,
        "workspace": folders.to_workspace(),
        "plan_options": replace(plan.to_plan_options(), preset=configuration.preset, overrides=assigned.plan),
        "spacing": parse_spacing(spacing),
        "image_formats": image_formats,
        "config": make_config(dims=dims_of(which), fold=held_out),
        "adapt": adapt,
        "predict_options": windows.to_predict_options(
            device=training.device,
            precision=training.precision,
            layout=training.layout,
            engine=choose_engine(engine, of_engine),
        ),
        "metrics": parse_metrics(metrics),
        "fold_resources": None if fold_resources is None else parse_resources(fold_resources),
        "overwrite": overwrite,
        "reporter": reporter,
    }
    task = plain_folders.describe(
        dataset, group_by=plan.group_by, workers=case_workers.workers, options=options, reporter=reporter
    )
    with case_workers.open(context) as workers:
        options["workers"] = workers
        if selection.configurations is not None:
            config_2d = make_config(dims=2)
            _run_configurations(task, selection.configurations, folds, selection, config_2d=config_2d, options=options)
        elif folds is None:
            _run_fold(task, held_out, options)
        else:
            _run_folds(task, folds, options)


def _reject_conflicts(fold: str | None, folds: str | None, fold_resources: str | None, cluster: str | None) -> None:
    """Reject options that exclude each other, or that have no effect.

    Raises:
        OptionError: there are such options.
    """
    if fold is not None and folds is not None:
        raise OptionError("--fold and --folds exclude each other", remedy="use one of them", code="E-OPTION-CONFLICT")
    if fold_resources is not None and cluster is None:
        raise OptionError(
            "--fold-resources has no effect without --cluster",
            remedy="leave it out, or use --cluster",
            code="E-OPTION-CONFLICT",
        )


def _run_configurations(
    dataset: str,
    configurations: str,
    folds: str | None,
    selection: SelectionArguments,
    *,
    config_2d: TrainConfig,
    options: PipelineOptions,
) -> None:
    from decathlete.cli.jobs_table import JobsReporter
    from decathlete.workflows.run_configurations import run_configurations

    options["reporter"] = JobsReporter()
    result = run_configurations(
        dataset,
        configurations=configurations,
        folds=folds,
        total_time_s=selection.total_seconds(),
        max_members=selection.max_members,
        config_2d=config_2d,
        **options,
    )
    selected = result.selection
    echo(selected.summary())
    echo(f"\nmodel in {selected.model}; report in {selected.report}")
    if result.predictions:
        echo(f"predictions in {result.predictions}")
    echo(selected.scores.headline_line())
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
