"""Commands ``check`` and ``preprocess``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from decathlete.cli import options as o
from decathlete.cli.cluster_options import open_workers
from decathlete.cli.plan_options import PLAN, FullPlanArguments
from decathlete.cli.terminal import echo
from decathlete.core.choices import PreparedFor
from decathlete.errors import OptionError
from decathlete.planning.options import PlanOptions


def check(
    context: typer.Context,
    dataset: o.Dataset,
    n_folds: o.NFolds = PlanOptions.n_folds,
    split_seed: o.SplitSeed = PlanOptions.split_seed,
    splits: o.SplitsFile = None,
    group_by: o.GroupBy = None,
    annotated: o.AnnotatedFile = None,
    spacing: o.Spacing = None,
    regions: o.Regions = None,
    regions_order: o.RegionsOrder = None,
    brats: o.Brats = False,
    data: o.Data = Path("data"),
    workers: o.Workers = 2,
    cluster: o.Cluster = None,
    as_json: o.AsJson = False,
) -> None:
    """List every problem of a dataset with its solution. Nothing is changed."""
    from decathlete.cli.progress import TerminalReporter, print_json
    from decathlete.core.regions import parse_order
    from decathlete.workflows.check import check as check_dataset
    from decathlete.workflows.workspace import Workspace

    with open_workers(context, cluster, workers) as case_workers:
        report = check_dataset(
            dataset,
            workspace=Workspace(data=data),
            n_folds=n_folds,
            split_seed=split_seed,
            splits=splits,
            group_by=group_by,
            annotated=annotated,
            spacing=o.parse_spacing(spacing),
            regions=regions,
            regions_order=parse_order(regions_order),
            brats=brats,
            workers=case_workers,
            progress=TerminalReporter().cases("check"),
        )
    if as_json:
        print_json(report)
    else:
        echo("\n".join(report.lines()))
    if not report.ok:
        raise typer.Exit(2)


def preprocess(
    context: typer.Context,
    task: o.Task,
    plan: FullPlanArguments,
    dim: o.Dims = "3",
    configuration: o.ConfigurationName = None,
    preset: o.Preset = None,
    mode: Annotated[
        PreparedFor,
        typer.Option(
            help="Purpose: train; or prediction with the plan of --model: of the labelled cases (val) or "
            "the test images (test)."
        ),
    ] = "train",
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="DIR", help="Folder of the run or model whose plan is used, for val and test."),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            show_default="full resolution",
            rich_help_panel=PLAN,
            help="Training time that the resolution is planned for: 90s, 20m, 1h30m. A short training learns more on a "
            "coarser grid.",
        ),
    ] = None,
    plan_from: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=PLAN,
            show_default="plan for these images",
            help="Folder of a run or model whose plan is reused: network, patch, spacing, and normalisation of "
            "channels with the same names.",
        ),
    ] = None,
    spacing: o.Spacing = None,
    data: o.Data = Path("data"),
    prepared: o.Prepared = Path("prepared"),
    results: o.Results = Path("results"),
    workers: o.Workers = 2,
    cluster: o.Cluster = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Check and plan a dataset and prepare every case. The plan is printed with its reasons."""
    from decathlete.cli.progress import TerminalReporter
    from decathlete.workflows.prepare_for_model import prepare_for_model
    from decathlete.workflows.preprocess import preprocess as preprocess_dataset
    from decathlete.workflows.train import train_config
    from decathlete.workflows.workspace import Workspace

    reporter = TerminalReporter()
    workspace = Workspace(data=data, prepared=prepared, results=results)
    if mode != "train":
        model = _require_model(
            mode,
            model,
            has_plan_options=plan.to_plan_options() != PlanOptions()
            or preset is not None
            or dim != "3"
            or configuration is not None
            or max_time is not None
            or plan_from is not None,
        )
        with open_workers(context, cluster, workers) as case_workers:
            store = prepare_for_model(
                task,
                model=model,
                mode=mode,
                workspace=workspace,
                spacing=o.parse_spacing(spacing),
                workers=case_workers,
                overwrite=overwrite,
                progress=reporter.cases("prepare"),
            )
        echo(f"{len(store.case_ids)} cases prepared in {store.folder}")
        return
    if model is not None:
        raise OptionError("--model has no effect with --mode train", remedy="use --mode val or test, or leave it out")
    with open_workers(context, cluster, workers) as case_workers:
        store = preprocess_dataset(
            task,
            configuration=o.choose_configuration(context, configuration, dim),
            workspace=workspace,
            options=replace(plan.to_plan_options(), preset=preset),
            spacing=o.parse_spacing(spacing),
            training=None if max_time is None else train_config(max_time=max_time),
            plan_from=plan_from,
            workers=case_workers,
            overwrite=overwrite,
            on_plan=reporter.plan,
            checking=reporter.cases("check"),
            progress=reporter.cases("prepare"),
        )
    echo(f"{len(store.case_ids)} cases prepared in {store.folder}")


def _require_model(mode: PreparedFor, model: Path | None, *, has_plan_options: bool) -> Path:
    """Return the model whose plan is used.

    Raises:
        OptionError: no model is given, or other options would change its plan.
    """
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
