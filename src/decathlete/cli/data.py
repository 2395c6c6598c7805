"""Commands ``check`` and ``preprocess``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decathlete.cli import options as o
from decathlete.cli.cluster_options import WorkerArguments
from decathlete.cli.component_settings import ReadingSettings, only_image_formats, split_image_formats
from decathlete.cli.option_values import parse_spacing
from decathlete.cli.pipeline_options import ConfigurationArguments, WorkspaceArguments
from decathlete.cli.plan_options import PLAN, FullPlanArguments
from decathlete.cli.terminal import echo
from decathlete.core.choices import PreparedFor
from decathlete.errors import OptionError
from decathlete.planning.options import PlanOptions

if TYPE_CHECKING:
    from decathlete.training.config import TrainConfig


def check(
    context: typer.Context,
    dataset: o.Dataset,
    case_workers: WorkerArguments,
    n_folds: o.NFolds = PlanOptions.n_folds,
    split_seed: o.SplitSeed = PlanOptions.split_seed,
    splits: o.SplitsFile = None,
    group_by: o.GroupBy = None,
    annotated: o.AnnotatedFile = None,
    spacing: o.Spacing = None,
    set_: ReadingSettings = None,
    regions: o.Regions = None,
    regions_order: o.RegionsOrder = None,
    brats: o.Brats = False,
    data: o.Data = Path("data"),
    as_json: o.AsJson = False,
) -> None:
    """List every problem of a dataset with its solution. Nothing is changed."""
    from decathlete.cli.progress import TerminalReporter, print_json
    from decathlete.core.regions import parse_order
    from decathlete.workflows.check import check as check_dataset
    from decathlete.workflows.workspace import Workspace

    with case_workers.open(context) as workers:
        report = check_dataset(
            dataset,
            workspace=Workspace(data=data),
            n_folds=n_folds,
            split_seed=split_seed,
            splits=splits,
            group_by=group_by,
            annotated=annotated,
            spacing=parse_spacing(spacing),
            image_formats=only_image_formats(set_),
            regions=regions,
            regions_order=parse_order(regions_order),
            brats=brats,
            workers=workers,
            progress=TerminalReporter().cases("check"),
        )
    if as_json:
        print_json(report)
    else:
        echo("\n".join(report.lines()))
    if not report.ok:
        raise typer.Exit(2)


PreparedForOption = Annotated[
    PreparedFor,
    typer.Option(
        help="Purpose: train; or prediction with the plan of --model: of the labelled cases (val) or "
        "the test images (test)."
    ),
]
PlanModel = Annotated[
    Path | None,
    typer.Option("--model", metavar="DIR", help="Folder of the run or model whose plan is used, for val and test."),
]
PlannedTime = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        show_default="full resolution",
        rich_help_panel=PLAN,
        help="Training time that the resolution is planned for: 90s, 20m, 1h30m. A short training learns more if it "
        "begins on a coarser grid.",
    ),
]
PlanFrom = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        rich_help_panel=PLAN,
        show_default="plan for these images",
        help="Folder of a run or model whose plan is reused: network, patch, spacing, and normalisation of "
        "channels with the same names.",
    ),
]


def preprocess(
    context: typer.Context,
    task: o.Task,
    plan: FullPlanArguments,
    configuration: ConfigurationArguments,
    folders: WorkspaceArguments,
    case_workers: WorkerArguments,
    mode: PreparedForOption = "train",
    model: PlanModel = None,
    max_time: PlannedTime = None,
    plan_from: PlanFrom = None,
    spacing: o.Spacing = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Check and plan a dataset and prepare every case. The plan is printed with its reasons."""
    from decathlete.cli.progress import TerminalReporter

    image_formats, overrides = split_image_formats(plan.set_)
    options = replace(plan.to_plan_options(), overrides=tuple(overrides))
    is_planned = options != PlanOptions() or configuration != ConfigurationArguments()
    source = _model_for(mode, model, has_plan_options=is_planned or max_time is not None or plan_from is not None)
    reporter = TerminalReporter()
    with case_workers.open(context) as workers:
        if mode != "train" and source is not None:
            from decathlete.workflows.prepare_for_model import prepare_for_model

            store = prepare_for_model(
                task,
                model=source,
                mode=mode,
                workspace=folders.to_workspace(),
                spacing=parse_spacing(spacing),
                image_formats=image_formats,
                workers=workers,
                overwrite=overwrite,
                progress=reporter.cases("prepare"),
            )
        else:
            from decathlete.workflows.preprocess import preprocess as preprocess_dataset

            store = preprocess_dataset(
                task,
                configuration=configuration.choose(context),
                workspace=folders.to_workspace(),
                options=replace(options, preset=configuration.preset),
                spacing=parse_spacing(spacing),
                image_formats=image_formats,
                training=None if max_time is None else _config_with(max_time),
                plan_from=plan_from,
                workers=workers,
                overwrite=overwrite,
                on_plan=reporter.plan,
                checking=reporter.cases("check"),
                progress=reporter.cases("prepare"),
            )
    echo(f"{len(store.case_ids)} cases prepared in {store.folder}")


def _config_with(max_time: str) -> TrainConfig:
    from decathlete.workflows.train import train_config  # here: it imports Lightning

    return train_config(max_time=max_time)


def _model_for(mode: PreparedFor, model: Path | None, *, has_plan_options: bool) -> Path | None:
    """Return the model whose plan is used, or ``None`` for ``--mode train``.

    Raises:
        OptionError: a model is missing or has no effect, or other options would change its plan.
    """
    if mode == "train":
        if model is None:
            return None
        raise OptionError("--model has no effect with --mode train", remedy="use --mode val or test, or leave it out")
    if model is None:
        raise OptionError(
            f"--mode {mode} needs the plan of a trained model",
            remedy="name the model with --model",
            code="E-OPTION-CONFLICT",
        )
    if has_plan_options:
        raise OptionError(
            f"--mode {mode} uses the dimensions, plan and network of the model",
            remedy="leave out --dim, --configuration, --preset, --max-time, --plan-from and the options of plan, "
            "network, regions and split",
            code="E-OPTION-CONFLICT",
        )
    return model
