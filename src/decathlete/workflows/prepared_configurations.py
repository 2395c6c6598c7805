"""Prepared data of several configurations: their folds and labels must agree, so that they can be compared.

Prepared data keep the plan, folds and labels that they were made with. This is checked before any training.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from decathlete.core.choices import Configuration
from decathlete.core.locks import locked_folder
from decathlete.dataset.spec import DatasetSpec
from decathlete.dataset.split_cases import split_cases
from decathlete.dataset.split_options import N_FOLDS, SEED
from decathlete.dataset.splits import Splits
from decathlete.dataset.stratify import Presence
from decathlete.errors import DecathleteError, OutputError
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.options import PlanOptions
from decathlete.planning.plan import Plan
from decathlete.preprocessing.write import find_obstacle
from decathlete.workflows.finished_store import find_finished_store
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.preparation_plan import plan_preparation
from decathlete.workflows.raw_dataset import find_folds

SPLITS = "splits.json"


@dataclass(frozen=True, kw_only=True)
class PreparedConfiguration:
    """Data that were prepared before.

    Attributes:
        plan: ``None``: it cannot be read.
        is_kept: whether they are used as they are, whatever the options of this command would make.
        has_requested_folds: whether this command would use their folds.
    """

    folder: Path
    splits: Splits
    plan: Plan | None
    is_kept: bool
    has_requested_folds: bool


@dataclass(frozen=True, kw_only=True)
class CommonFolds:
    """The folds of all configurations.

    Attributes:
        prepared: the configurations that were prepared before.
        file: list of these folds, for configurations that would be split in another way.
    """

    splits: Splits
    prepared: Mapping[Configuration, PreparedConfiguration]
    file: Path | None = None

    def options(self, name: Configuration, options: PlanOptions) -> PlanOptions:
        """Return the options with which a configuration gets these folds."""
        if self.file is None or (name in self.prepared and self.prepared[name].is_kept):
            return options
        return replace(options, splits=self.file, n_folds=N_FOLDS, split_seed=SEED)

    def kept_plan(self, name: Configuration) -> Plan | None:
        """Return the plan of prepared data that are used as they are; ``None``: there are none."""
        prepared = self.prepared.get(name)
        return prepared.plan if prepared is not None and prepared.is_kept else None

    def plan_in_use(self, name: Configuration, plan: Plan) -> Plan:
        """Return the plan of prepared data that are used as they are, or else ``plan``."""
        return self.kept_plan(name) or plan

    def check_labels(self, plans: Mapping[Configuration, Plan]) -> None:
        """Check that all configurations have the same labels and regions.

        Args:
            plans: of all configurations, by the options of this command.

        Raises:
            OutputError: one was prepared with others.
        """
        labels = {name: self.plan_in_use(name, plan).labels for name, plan in plans.items()}
        for name, prepared in self.prepared.items():
            if name not in labels or prepared.plan is None:
                continue
            if others := [other for other in labels if labels[other] != prepared.plan.labels]:
                raise OutputError(
                    f"{name} was prepared with other classes or regions than {', '.join(others)} "
                    f"{'has' if len(others) == 1 else 'have'} in this command",
                    where=prepared.folder,
                    remedy="use the same --regions or --brats for all configurations, or --overwrite to prepare and "
                    "train all of them again",
                    code="E-OUTPUT-EXISTS",
                )


def plan_preparations(
    pipelines: Mapping[Configuration, FoldPipeline],
    folds: CommonFolds,
    spec: DatasetSpec,
    fingerprint: Fingerprint,
    begun: Collection[Configuration],
) -> dict[Configuration, Plan]:
    """Return the plan of the prepared data of each configuration that earlier commands have prepared or trained.

    Args:
        pipelines: configuration -> its options, with the training time that its plan is made for.
        begun: configurations with trainings of earlier commands.

    Raises:
        OutputError: data were prepared by another plan than the options request; the error lists all of them.
        OptionError: options that do not fit the images.
    """
    plans: dict[Configuration, Plan] = {}
    obstacles = []
    for name, pipeline in pipelines.items():
        folder = pipeline.prepared
        if (kept := folds.kept_plan(name)) is not None:
            plans[name] = kept
        elif name in begun or (folder / "plan.json").is_file():
            plans[name] = plan = plan_for(pipeline, spec, fingerprint)
            splits = find_folds(spec, pipeline.plan_options.split, fingerprint, folder, overwrite=False).splits
            if obstacle := find_obstacle(folder, spec, plan, splits):
                obstacles.append(f"{name} {obstacle}")
    if obstacles:
        raise OutputError(
            f"the prepared data cannot be used: {'; '.join(obstacles)}",
            where=next(iter(pipelines.values())).prepared.parent,
            remedy="use the same options to keep them, other folders (--prepared, --results), or --overwrite to "
            "prepare and train all configurations again",
            code="E-OUTPUT-EXISTS",
        )
    return plans


def plan_for(pipeline: FoldPipeline, spec: DatasetSpec, fingerprint: Fingerprint) -> Plan:
    """Return the plan by which a configuration will be prepared, for the training time of ``pipeline``."""
    folder = pipeline.prepared
    with locked_folder(folder.parent, wait_for="checked the dataset of"):
        return plan_preparation(
            spec,
            fingerprint,
            pipeline.which,
            folder,
            options=pipeline.plan_options,
            training=pipeline.planned_training,
            workers=pipeline.workers,
            fold_resources=pipeline.fold_resources,
            overwrite=pipeline.overwrite,
            warn=False,  # they are logged when the data are prepared
        )


def choose_common_folds(
    pipeline: FoldPipeline, names: Sequence[Configuration], spec: DatasetSpec, presence: Presence
) -> CommonFolds:
    """Return the folds of several configurations: those of prepared data, or else a new split.

    Args:
        presence: classes of each case.

    Raises:
        OutputError: a configuration was prepared with other folds than another one, or than the options request.
        DecathleteError: as of :func:`~decathlete.dataset.split_cases.split_cases`.
    """
    found = {name: _read_prepared(pipeline, name, spec, presence) for name in names}
    prepared = {name: data for name, data in found.items() if data is not None}
    fresh = split_cases(spec, pipeline.plan_options.split, presence).splits
    source = next((name for name, data in prepared.items() if data.has_requested_folds), None)
    common = fresh if source is None else prepared[source].splits
    for name, data in prepared.items():
        if data.splits.folds != common.folds:
            raise OutputError(
                f"{name} was prepared with {_describe(data.splits)}, "
                + (
                    f"{source} with {_describe(common)}" if source else f"and this command requests {_describe(common)}"
                ),
                where=data.folder,
                remedy="use the same cases, --splits, --n-folds and --split-seed for all configurations, or "
                "--overwrite to prepare and train all of them again",
                code="E-OUTPUT-EXISTS",
            )
    file = None if source is None or common.folds == fresh.folds else prepared[source].folder / SPLITS
    return CommonFolds(splits=common, prepared=prepared, file=file)


def _describe(splits: Splits) -> str:
    return (
        f"{len(splits.folds)} folds from {splits.source}"
        if splits.source
        else f"a random split into {len(splits.folds)} (seed {splits.seed})"
    )


def _read_prepared(
    pipeline: FoldPipeline, name: Configuration, spec: DatasetSpec, presence: Presence
) -> PreparedConfiguration | None:
    """Return the prepared data of a configuration; ``None``: there are none, or they are replaced."""
    folder = pipeline.workspace.prepared_folder(pipeline.task, name)
    if pipeline.overwrite or not (folder / SPLITS).is_file():
        return None
    splits = plan = None
    with suppress(DecathleteError):  # damaged: repaired or rejected when the configuration is prepared
        splits = Splits.load(folder / SPLITS)
    with suppress(DecathleteError):
        plan = Plan.load(folder / "plan.json")
    if splits is None:
        return None
    may_reuse = replace(pipeline, configuration=name).may_reuse
    is_kept = may_reuse and find_finished_store(folder, spec) is not None
    requested = split_cases(spec, pipeline.plan_options.split, presence, recorded=splits).splits
    return PreparedConfiguration(
        folder=folder,
        splits=splits,
        plan=plan,
        is_kept=is_kept,
        has_requested_folds=is_kept or requested.folds == splits.folds,
    )
