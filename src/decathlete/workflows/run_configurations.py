"""Train several configurations in a given time, then select the best of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from decathlete.core.choices import Configuration
from decathlete.core.durations import format_duration
from decathlete.core.locks import locked_folder
from decathlete.core.signatures import accepts_fields_of
from decathlete.dataset.manifest import read_dataset
from decathlete.dataset.split_cases import split_cases
from decathlete.errors import CasesFailedError, DecathleteError, FoldsFailedError, InterruptedRunError, OptionError
from decathlete.evaluation.metrics import make_metrics
from decathlete.evaluation.scores import Scores
from decathlete.planning.compute_budget import steps_after_adaptation, training_steps
from decathlete.planning.configurations import ConfigurationOffer, dims_of, offered_configurations
from decathlete.planning.plan import Plan
from decathlete.training.config import TrainConfig
from decathlete.training.run_folder import record_in
from decathlete.workflows.budget import budget_of_folds
from decathlete.workflows.cross_validate import describe_failure, write_summary
from decathlete.workflows.fold import FoldPipeline, FoldResult, PipelineOptions
from decathlete.workflows.fold_tasks import FoldOutcome, run_folds
from decathlete.workflows.folds import FoldSelection, format_folds
from decathlete.workflows.jobs_progress import JobsProgress
from decathlete.workflows.preprocess import load_or_make_fingerprint
from decathlete.workflows.selection.result import SelectResult
from decathlete.workflows.selection.select import DEFAULT_MAX_MEMBERS, select
from decathlete.workflows.training_jobs import (
    AUTO,
    TRAINING_SHARE,
    Job,
    JobState,
    divide_time,
    leave_out_short_trainings,
    list_jobs,
    parse_configurations,
    time_that_fits,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConfigurationsResult:
    """The results of several configurations.

    Attributes:
        selection: the selected model, its scores and report.
        predictions: folder of the test images, predicted by the selected model, if the dataset has any.
        failed_tests: the error that lists test images which could not be predicted.
    """

    selection: SelectResult
    predictions: Path | None
    failed_tests: CasesFailedError | None = None


@accepts_fields_of(FoldPipeline)
def run_configurations(
    task: str | Path,
    *,
    configurations: str | Sequence[str] = AUTO,
    folds: str | Sequence[int] | None = None,
    total_time_s: float | None = None,
    max_members: int = DEFAULT_MAX_MEMBERS,
    config_2d: TrainConfig | None = None,
    **options: Unpack[PipelineOptions],
) -> ConfigurationsResult:
    """Train every fold of several configurations, select the best one or pair, and predict the test images with it.

    After an interruption, the same call resumes: finished folds are not trained again.

    Args:
        task: as in :func:`decathlete.run`.
        configurations: names separated by commas or in a list; ``"auto"``: those that the images justify, without
            those for which ``total_time_s`` is too short.
        folds: as in :func:`decathlete.cross_validate`.
        total_time_s: time of everything, seconds. A part of it is divided equally among the trainings; trainings that
            were started before keep their time, and later ones get less if other work takes longer than expected.
            ``None``: each training ends as ``config`` says.
        max_members: see :func:`decathlete.select`.
        config_2d: settings of 2D trainings; ``None``: ``config`` of ``options``.
        options: as in :func:`decathlete.run`, without ``dims`` and ``configuration``.

    Raises:
        OptionError: unknown configurations or folds, or too little time for them.
        FoldsFailedError: some trainings failed; the others are kept, and nothing is selected.
        DecathleteError: preparing the dataset or the selection failed.
        InterruptedRunError: a signal stopped the work; finished results are kept.
    """
    selection = FoldSelection.parse(folds)
    pipeline = FoldPipeline(task=task, **options)
    _check_metrics(pipeline)
    study = _Study(pipeline, config_2d or pipeline.config, total_time_s)
    chosen = study.choose(configurations, selection)
    study.check(chosen)
    study.train(study.plan_jobs(chosen, selection))
    return study.select(chosen, max_members)


def _check_metrics(pipeline: FoldPipeline) -> None:
    if "dice" not in [metric.name for metric in make_metrics(pipeline.metrics)]:
        raise OptionError("configurations are compared by their Dice", remedy="add dice to --metrics")


class _Study:
    """The trainings of one call."""

    def __init__(
        self,
        pipeline: FoldPipeline,
        config_2d: TrainConfig,
        total_time_s: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pipeline = pipeline
        self.configs = {2: config_2d, 3: pipeline.config}
        self.total_time_s = total_time_s
        self.n_folds = 0
        self._clock = clock
        self._began_s = clock()

    def choose(self, names: str | Sequence[str], selection: FoldSelection) -> tuple[Configuration, ...]:
        """Check the dataset, count its folds, and return the configurations to train."""
        pipeline, workspace = self.pipeline, self.pipeline.workspace
        named = parse_configurations(names)
        options = pipeline.plan_options
        spec = read_dataset(workspace.dataset(pipeline.task), group_by=options.group_by, spacing=pipeline.spacing)
        pipeline.reporter.step("Check the dataset")
        folder = workspace.prepared_folder(pipeline.task, 3).parent
        with locked_folder(folder, wait_for="checked the dataset of"):
            fingerprint = load_or_make_fingerprint(
                spec,
                folder,
                options.orientation,
                workers=pipeline.workers,
                progress=pipeline.reporter.cases("check"),
            )
        self.n_folds = len(split_cases(spec, options.split, fingerprint.presence(spec.labels)).splits.folds)
        if named:
            return named
        offers = offered_configurations(spec, fingerprint, options=options)
        if self.total_time_s is not None:
            offers = self._leave_out(offers, selection.resolve(self.n_folds), self.total_time_s)
        for offer in offers:
            log.info("%s is %s: %s", offer.name, "trained" if offer.offered else "not trained", offer.reason)
        return tuple(offer.name for offer in offers if offer.offered)

    def _leave_out(
        self, offers: Sequence[ConfigurationOffer], folds: Sequence[int], total_time_s: float
    ) -> tuple[ConfigurationOffer, ...]:
        """Return the offers without configurations for which the time is too short."""

        def time_of(names: Sequence[Configuration]) -> float:
            return TRAINING_SHARE * total_time_s / len(list_jobs(names, folds, n_folds=self.n_folds))

        def steps_of(plan: Plan, time_s: float) -> int:
            pipeline, config = self.pipeline, self.configs[plan.dims].revised(max_time_s=time_s)
            budget = budget_of_folds(
                config, plan.network, workers=pipeline.workers, fold_resources=pipeline.fold_resources
            )
            return (steps_after_adaptation if pipeline.adapt else training_steps)(plan, budget)

        offered = [offer.name for offer in offers if offer.offered]
        started = {job.configuration for job in self._started(list_jobs(offered, folds, n_folds=self.n_folds))}
        return leave_out_short_trainings(offers, time_of=time_of, steps_of=steps_of, started=started)

    def check(self, configurations: Sequence[Configuration]) -> None:
        """Check options and folders of every configuration before any training."""
        for name in configurations:
            self._pipeline(name).check()

    def plan_jobs(self, configurations: Sequence[Configuration], selection: FoldSelection) -> dict[Job, TrainConfig]:
        """Return every training with its settings, in the order in which they run."""
        jobs = list_jobs(configurations, selection.resolve(self.n_folds), n_folds=self.n_folds)
        configs = {job: self.configs[dims_of(job.configuration)] for job in jobs}
        if self.total_time_s is None:
            self._announce(jobs, None)
            return configs
        times = divide_time(self.total_time_s, self._started(jobs), jobs)
        self._announce(jobs, times)
        return {job: configs[job].revised(max_time_s=times[job]) for job in jobs}

    def _started(self, jobs: Sequence[Job]) -> dict[Job, float]:
        """Return the training times of jobs that were started before."""
        if self.pipeline.overwrite:
            return {}
        kept = {}
        for job in jobs:
            record = record_in(self._folder(job))
            if record is not None and record.config.max_time_s is not None:
                kept[job] = record.config.max_time_s
        return kept

    def _announce(self, jobs: Sequence[Job], times: Mapping[Job, float] | None) -> None:
        by_name: dict[str, list[int]] = {}
        for job in jobs:
            by_name.setdefault(job.configuration, []).append(job.fold)
        listed = "; ".join(f"{name} folds {format_folds(folds)}" for name, folds in by_name.items())
        text = f"{len(jobs)} trainings: {listed}"
        if times is not None and self.total_time_s is not None:
            each = " to ".join(format_duration(s) for s in sorted({min(times.values()), max(times.values())}))
            text += (
                f". Each trains for {each}: together {TRAINING_SHARE:.0%} of {format_duration(self.total_time_s)}, the "
                "rest is for preparing, scoring and selecting"
            )
        self.pipeline.reporter.step(text)

    def train(self, configs: Mapping[Job, TrainConfig]) -> None:
        """Train and score everything that is missing.

        Raises:
            FoldsFailedError: some trainings failed; the others were run.
        """
        progress = JobsProgress([self._state(job, config) for job, config in configs.items()], self.pipeline.reporter)
        self.pipeline.reporter.jobs(progress.states)
        failures: dict[str, str] = {}
        try:
            for name in dict.fromkeys(job.configuration for job in configs):
                mine = {job: config for job, config in configs.items() if job.configuration == name}
                failures |= self._train_configuration(name, self._within_time(name, mine, progress), progress)
        finally:
            self.pipeline.reporter.jobs_end()
        if failures:
            n_done = sum(state.status == "finished" for state in progress.states)
            raise FoldsFailedError(failures, n_done=n_done)

    def _within_time(
        self, name: Configuration, configs: Mapping[Job, TrainConfig], progress: JobsProgress
    ) -> Mapping[Job, TrainConfig]:
        """Return the settings of one configuration with the time that is left; all its folds need the same plan."""
        if self.total_time_s is None or self._started(list(configs)):
            return configs
        planned_s = max(config.max_time_s or 0.0 for config in configs.values())
        earlier_s = sum(s.max_time_s or 0.0 for s in progress.states if s.status == "finished" and s.total_s is None)
        left_s = self.total_time_s - (self._clock() - self._began_s) - earlier_s / TRAINING_SHARE
        time_s = time_that_fits(planned_s, left_s=left_s, states=progress.states)
        if time_s == planned_s:
            return configs
        log.warning(
            "%s: each training gets %s instead of %s, since scoring takes longer than expected",
            name,
            format_duration(time_s),
            format_duration(planned_s),
        )
        for job in configs:
            progress.limit(job, time_s)
        return {job: config.revised(max_time_s=time_s) for job, config in configs.items()}

    def _train_configuration(
        self, name: Configuration, configs: Mapping[Job, TrainConfig], progress: JobsProgress
    ) -> dict[str, str]:
        """Run the folds of one configuration; return job -> message of those that failed."""
        finished: dict[int, FoldResult] = {}
        failures: dict[Job, str] = {}
        pipeline = replace(self._pipeline(name), config=next(iter(configs.values())), reporter=progress)
        try:
            with pipeline.locked_store() as store, pipeline.locked_folds([job.fold for job in configs]):
                for job, outcome in _run_jobs(pipeline, configs, progress):
                    if isinstance(outcome, FoldResult):
                        finished[job.fold] = outcome
                        progress.finish(job, dice=outcome.scores.headline.dice if outcome.scores else None)
                    else:
                        failures[job] = describe_failure(job.fold, outcome)
                        progress.fail(job)
                if finished:
                    by_fold = {job.fold: message for job, message in failures.items()}
                    write_summary(pipeline, store, finished, failed=by_fold)
        except InterruptedRunError:
            raise
        except DecathleteError as problem:  # of preparing the data: the other configurations are trained
            log.error("%s failed: %s", name, problem)
            for job in configs:
                if job.fold not in finished and job not in failures:
                    progress.fail(job)
            return {name: str(problem)}
        return {str(job): message for job, message in failures.items()}

    def select(self, configurations: Sequence[Configuration], max_members: int) -> ConfigurationsResult:
        """Select the best configuration or pair, and predict the test images with it."""
        pipeline = self.pipeline
        folders = [pipeline.workspace.results_folder(pipeline.task, name) for name in configurations]
        selected = select(
            folders,
            dataset_root=pipeline.workspace.dataset(pipeline.task),
            options=pipeline.predict_options,
            max_members=max_members,
            group_by=pipeline.plan_options.group_by,
            workers=pipeline.workers,
            overwrite=True,  # it follows from the folds, as the scores of a cross-validation do
            reporter=pipeline.reporter,
        )
        predictions, failed = pipeline.predict_tests([selected.folder], selected.folder / "predictions")
        return ConfigurationsResult(selection=selected, predictions=predictions, failed_tests=failed)

    def _pipeline(self, name: Configuration) -> FoldPipeline:
        return replace(self.pipeline, configuration=name, dims=dims_of(name), config=self.configs[dims_of(name)])

    def _folder(self, job: Job) -> Path:
        return self.pipeline.workspace.run_folder(self.pipeline.task, job.configuration, job.fold)

    def _state(self, job: Job, config: TrainConfig) -> JobState:
        """Return the state of a job at the start: finished ones were scored by an earlier command."""
        state = JobState(job=job, max_time_s=config.max_time_s)
        if self.pipeline.overwrite or not (self._folder(job) / "scores.json").is_file():
            return state
        try:
            scores = Scores.load(self._folder(job) / "scores.json")
        except DecathleteError:
            return state
        return replace(state, status="finished", share=1.0, dice=scores.headline.dice)


def _run_jobs(
    pipeline: FoldPipeline, configs: Mapping[Job, TrainConfig], progress: JobsProgress
) -> Iterator[tuple[Job, FoldOutcome]]:
    """Run the folds of one configuration, one after the other, or all at once as tasks of an executor."""
    if isinstance(pipeline.workers, int):
        for job, config in configs.items():
            progress.begin(job)
            ((_, outcome),) = run_folds(replace(pipeline, config=config), [job.fold])
            yield job, outcome
        return
    by_time: dict[float | None, list[Job]] = {}
    for job, config in configs.items():
        by_time.setdefault(config.max_time_s, []).append(job)
    for jobs in by_time.values():
        by_fold = {job.fold: job for job in jobs}
        for fold, outcome in run_folds(replace(pipeline, config=configs[jobs[0]]), list(by_fold)):
            yield by_fold[fold], outcome
