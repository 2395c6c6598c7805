"""Train several configurations in a given time, then select the best of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Unpack

from decathlete.core.choices import Configuration
from decathlete.core.durations import format_duration
from decathlete.core.signatures import accepts_fields_of
from decathlete.errors import (
    CasesFailedError,
    DecathleteError,
    FoldsFailedError,
    InterruptedRunError,
)
from decathlete.evaluation.scores import Scores
from decathlete.planning.configurations import dims_of, plan_configuration
from decathlete.training.config import TrainConfig
from decathlete.training.run_folder import record_in
from decathlete.workflows.checked_dataset import CheckedDataset, check_and_split
from decathlete.workflows.choose_configurations import ConfigurationChooser
from decathlete.workflows.cross_validate import describe_failure, write_summary
from decathlete.workflows.earlier_runs import check_runs
from decathlete.workflows.fold import FoldPipeline, FoldResult, PipelineOptions
from decathlete.workflows.fold_tasks import FoldOutcome, attempt_fold, run_folds
from decathlete.workflows.folds import FoldSelection, require_held_out_cases
from decathlete.workflows.job_limits import JobLimits
from decathlete.workflows.jobs_progress import JobsProgress
from decathlete.workflows.selection.result import SelectResult
from decathlete.workflows.selection.select import DEFAULT_MAX_MEMBERS, PREDICTIONS, check_metrics, select
from decathlete.workflows.total_time import OtherWork, TotalTime
from decathlete.workflows.training_jobs import (
    AUTO,
    Job,
    JobState,
    describe_jobs,
    divide_time,
    list_jobs,
    parse_configurations,
)

SAME_REASON = "not run, for the same reason"

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
        total_time_s: time of everything, seconds. What is left beside preparing, scoring and selecting is divided
            equally among the trainings; trainings that were started before keep their time. If other work takes longer
            than expected, later trainings get less, and ``"auto"`` leaves out configurations; if it takes less time,
            later trainings get it. ``None``: each training ends as ``config`` says.
        max_members: see :func:`decathlete.select`.
        config_2d: settings of 2D trainings; ``None``: ``config`` of ``options``.
        options: as in :func:`decathlete.run`, without ``dims`` and ``configuration``.

    Raises:
        OptionError: unknown configurations or folds, or too little time for them.
        FoldsFailedError: some trainings failed; the others are kept, and nothing is selected.
        DecathleteError: preparing the dataset or the selection failed.
        InterruptedRunError: a signal stopped the work; finished results are kept.
    """
    named = parse_configurations(configurations)  # a wrong name is an error before any work
    pipeline = FoldPipeline(task=task, **options)
    check_metrics(pipeline.metrics)
    study = _Study(
        pipeline,
        config_2d=config_2d or pipeline.config,
        total_time_s=total_time_s,
        folds=FoldSelection.parse(folds),
        max_members=max_members,
        named=named,
    )
    study.check(chosen := study.chooser.choose(named))
    study.check_runs(jobs := study.plan_jobs(chosen))
    trained = study.train(jobs, may_leave_out=not named)
    return study.select(trained)


class _Study:
    """The trainings of one call."""

    def __init__(
        self,
        pipeline: FoldPipeline,
        *,
        config_2d: TrainConfig,
        total_time_s: float | None,
        folds: FoldSelection,
        max_members: int,
        named: Sequence[Configuration] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pipeline = pipeline
        self.configs = {2: config_2d, 3: pipeline.config}
        self.total_time_s = total_time_s
        self.max_members = max_members
        self.dataset: CheckedDataset | None = None
        self.other = OtherWork(expected_s={}, n_folds=0)  # estimated where the total time is limited
        self._clock = clock
        self._began_s = clock()
        self.check(named or ("2d",))
        for name in named:
            self._pipeline(name).check_manifest(folds.named)
        if not named:  # "auto" always offers slices, but not if the pretrained model has no network for them
            slices = self._pipeline("2d")
            config = slices.config.revised(pretrained=None, freeze_stages=0)
            replace(slices, config=config).check_manifest(folds.named)
        self.dataset = dataset = check_and_split(pipeline, named)
        self.n_folds = dataset.n_folds
        require_held_out_cases(dataset.splits, numbers := folds.resolve(self.n_folds))
        self.chooser = ConfigurationChooser(
            pipeline=pipeline,
            dataset=dataset,
            folds=numbers,
            plan_of=partial(plan_configuration, dataset.spec, dataset.fingerprint, options=pipeline.plan_options),
            config_of=self.configs.__getitem__,
            total_time_s=total_time_s,
            max_members=max_members,
            started=self._started,
        )

    def check(self, configurations: Sequence[Configuration]) -> None:
        """Check options and folders of every configuration before any training."""
        for name in configurations:
            self._pipeline(name).check()

    def check_runs(self, configs: Mapping[Job, TrainConfig]) -> None:
        """Check that runs of earlier commands can be resumed or kept."""
        if not self.pipeline.overwrite and self.dataset is not None:
            check_runs({job: self._folder(job) for job in configs}, configs, self.dataset, where=self._results)

    def plan_jobs(self, configurations: Sequence[Configuration]) -> dict[Job, TrainConfig]:
        """Return every training with its settings, in the order in which they run."""
        jobs = list_jobs(configurations, self.chooser.folds, n_folds=self.n_folds)
        configs = {job: self.configs[dims_of(job.configuration)] for job in jobs}
        text = f"{len(jobs)} trainings: {describe_jobs(jobs)}"
        if self.total_time_s is None:
            self.pipeline.reporter.step(text)
            return configs
        self.other = self.chooser.other_work(configurations)
        other_s = self._clock() - self._began_s + self.other.total_s([job.configuration for job in jobs])
        times = divide_time(self.total_time_s, self._started(jobs), jobs, other_s=other_s)
        self.pipeline.reporter.step(f"{text}. {_describe_times(times, self.total_time_s)}")
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

    def train(self, configs: Mapping[Job, TrainConfig], *, may_leave_out: bool) -> tuple[Configuration, ...]:
        """Train and score everything that is missing; return the configurations that were not left out.

        Args:
            may_leave_out: whether configurations for which no time is left may be left out.

        Raises:
            FoldsFailedError: some trainings failed; the others were run.
        """
        progress = JobsProgress([self._state(job, config) for job, config in configs.items()], self.pipeline.reporter)
        self.pipeline.reporter.jobs(progress.states)
        names = tuple(dict.fromkeys(job.configuration for job in configs))
        limits = JobLimits(
            self._total_time(),
            planned_s={job: config.max_time_s for job, config in configs.items()},
            kept=self._started(list(configs)),
            may_leave_out=may_leave_out,
            progress=progress,
        )
        failures: dict[str, str] = {}
        try:
            for name in names:
                if not limits.is_left_out(name):
                    own = {job: config for job, config in configs.items() if job.configuration == name}
                    failures |= self._train_configuration(name, own, progress, limits)
        finally:
            self.pipeline.reporter.jobs_end()
        if failures:
            n_done = sum(state.status == "finished" for state in progress.states)
            raise FoldsFailedError(failures, n_done=n_done)
        return tuple(dict.fromkeys(state.job.configuration for state in progress.states))

    def _total_time(self) -> TotalTime | None:
        """Return what keeps the total time; ``None`` without one, and for an executor, which runs folds at once."""
        pipeline = self.pipeline
        if self.total_time_s is None or not isinstance(pipeline.workers, int):
            return None
        return TotalTime(
            self.total_time_s,
            self.other,
            self._results,
            forget=pipeline.overwrite,
            clock=self._clock,
            began_s=self._began_s,
        )

    def _train_configuration(
        self, name: Configuration, configs: Mapping[Job, TrainConfig], progress: JobsProgress, limits: JobLimits
    ) -> dict[str, str]:
        """Run the folds of one configuration; return job -> message of those that failed."""
        finished: dict[int, FoldResult] = {}
        failures: dict[Job, str] = {}
        config = self.configs[dims_of(name)].revised(max_time_s=limits.plan_time(name))
        pipeline = replace(self._pipeline(name), config=config, reporter=progress)
        began_s = self._clock()
        try:
            with pipeline.locked_store() as store, pipeline.locked_folds([job.fold for job in configs]):
                limits.add_preparing(name, self._clock() - began_s)
                for job, outcome in run_jobs(pipeline, configs, progress, limits):
                    if isinstance(outcome, FoldResult):
                        finished[job.fold] = outcome
                        progress.finish(job, dice=outcome.scores.headline.dice if outcome.scores else None)
                        limits.add_finished(job)
                    else:
                        failures[job] = describe_failure(job.fold, outcome)
                        progress.fail(job)
                if any(result.scores is not None for result in finished.values()):
                    by_fold = {job.fold: message for job, message in failures.items()}
                    write_summary(pipeline, store, finished, failed=by_fold)
        except InterruptedRunError:
            raise
        except DecathleteError as problem:  # of preparing the data: the other configurations are trained
            log.error("%s failed: %s", name, problem)
            not_run = [job for job in configs if job.fold not in finished and job not in failures]
            for job in not_run:
                progress.fail(job)
            by_name = {str(job): message for job, message in failures.items()}
            return by_name | dict.fromkeys(map(str, not_run), SAME_REASON) | {str((*not_run, name)[0]): str(problem)}
        return {str(job): message for job, message in failures.items()}

    def select(self, configurations: Sequence[Configuration]) -> ConfigurationsResult:
        """Select the best configuration or pair, and predict the test images with it."""
        pipeline = self.pipeline
        folders = [pipeline.workspace.results_folder(pipeline.task, name) for name in configurations]
        selected = select(
            folders,
            dataset_root=pipeline.workspace.dataset(pipeline.task),
            options=pipeline.predict_options,
            max_members=self.max_members,
            group_by=pipeline.plan_options.group_by,
            metrics=pipeline.metrics,
            workers=pipeline.workers,
            overwrite=True,  # it follows from the folds, as the scores of a cross-validation do
            keep_same=True,
            reporter=pipeline.reporter,
        )
        # the predictions follow from the selection, which may have changed
        predictions, failed = pipeline.predict_tests([selected.folder], selected.folder / PREDICTIONS, overwrite=True)
        return ConfigurationsResult(selection=selected, predictions=predictions, failed_tests=failed)

    def _pipeline(self, name: Configuration) -> FoldPipeline:
        options = self.pipeline.plan_options
        if self.dataset is not None:  # it was checked
            options = self.dataset.folds.options(name, options)
        return replace(
            self.pipeline,
            configuration=name,
            dims=dims_of(name),
            config=self.configs[dims_of(name)],
            plan_options=options,
        )

    @property
    def _results(self) -> Path:
        """Folder with the results of all configurations."""
        return self.pipeline.workspace.results_folder(self.pipeline.task, 3).parent

    def _folder(self, job: Job) -> Path:
        return self.pipeline.workspace.run_folder(self.pipeline.task, job.configuration, job.fold)

    def _state(self, job: Job, config: TrainConfig) -> JobState:
        """Return the state of a job at the start: finished ones were scored by an earlier command."""
        expected_s = self.other.expected_s.get(job.configuration, 0.0)
        state = JobState(job=job, max_time_s=config.max_time_s, expected_scoring_s=expected_s)
        if self.pipeline.overwrite or not (self._folder(job) / "scores.json").is_file():
            return state
        try:
            scores = Scores.load(self._folder(job) / "scores.json")
        except DecathleteError:
            return state
        return replace(state, status="finished", share=1.0, dice=scores.headline.dice)


def _describe_times(times: Mapping[Job, float], total_s: float) -> str:
    each = " to ".join(format_duration(s) for s in sorted({min(times.values()), max(times.values())}))
    return (
        f"Each trains for {each}: together {sum(times.values()) / total_s:.0%} of {format_duration(total_s)}, the rest "
        "is for preparing, scoring and selecting"
    )


def run_jobs(
    pipeline: FoldPipeline, configs: Mapping[Job, TrainConfig], progress: JobsProgress, limits: JobLimits
) -> Iterator[tuple[Job, FoldOutcome]]:
    """Run the folds of one configuration, one after the other, or all at once as tasks of an executor."""
    if isinstance(pipeline.workers, int):
        for job, config in configs.items():
            limited = replace(pipeline, config=config.revised(max_time_s=limits.limit(job)))
            progress.begin(job)
            yield job, attempt_fold(job.fold, limited, plan_time_s=pipeline.config.max_time_s)
        return
    by_time: dict[float | None, list[Job]] = {}
    for job, config in configs.items():
        by_time.setdefault(config.max_time_s, []).append(job)
    for jobs in by_time.values():
        by_fold = {job.fold: job for job in jobs}
        limited = replace(pipeline, config=configs[jobs[0]])
        for fold, outcome in run_folds(limited, list(by_fold), plan_time_s=pipeline.config.max_time_s):
            yield by_fold[fold], outcome
