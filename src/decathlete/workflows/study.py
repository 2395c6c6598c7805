"""A study: the trainings of several configurations on the folds of one dataset, planned and checked in advance."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from decathlete.core.choices import Configuration
from decathlete.core.durations import format_duration
from decathlete.errors import DecathleteError
from decathlete.evaluation.scores import Scores
from decathlete.planning.configurations import dims_of, plan_configuration
from decathlete.planning.plan import Plan
from decathlete.training.config import TrainConfig
from decathlete.training.run_folder import record_in
from decathlete.workflows.checked_dataset import CheckedDataset, check_and_split
from decathlete.workflows.choose_configurations import ConfigurationChooser
from decathlete.workflows.earlier_runs import PlannedRuns
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.folds import FoldSelection, require_held_out_cases
from decathlete.workflows.prepared_configurations import plan_for, plan_preparations
from decathlete.workflows.time_shares import SharePlanner
from decathlete.workflows.total_time import TotalTime
from decathlete.workflows.training_jobs import Job, JobState, describe_jobs, divide_time


class Study:
    """Plans the trainings of several configurations. The options and the dataset are checked when it is made.

    Args:
        pipeline: the options of all trainings.
        config_2d: settings of 2D trainings.
        total_time_s: time of everything, seconds; ``None``: not limited.
        folds: folds of each configuration.
        max_members: maximum number of networks of the selected model.
        named: configurations that the user named; empty: those that images and time justify.
        clock: returns the current time, seconds.

    Raises:
        DecathleteError: options that do not fit the dataset, or errors in it.
    """

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
        if total_time_s is not None:  # until it is divided
            self.configs = {dims: config.revised(max_time_s=total_time_s) for dims, config in self.configs.items()}
        self.total_time_s = total_time_s
        self.named = tuple(named)
        self.clock = clock
        self._began_s = clock()
        self._dataset: CheckedDataset | None = None
        self._check_options(folds)
        self._dataset = dataset = check_and_split(pipeline, named)
        require_held_out_cases(dataset.splits, numbers := folds.resolve(dataset.n_folds))
        self._planner = SharePlanner(
            pipeline=pipeline,
            dataset=dataset,
            folds=numbers,
            plan_in=self._plan_in,
            config_of=self.configs.__getitem__,
            total_time_s=total_time_s,
            max_members=max_members,
            started=self.started,
            spent_s=self._spent_s,
        )
        self.other = self._planner.other_work({})  # of the plans, where the total time is limited
        self._chooser = ConfigurationChooser(
            dataset=dataset,
            plan_of=partial(plan_configuration, dataset.spec, dataset.fingerprint, options=pipeline.plan_options),
            config_of=self.configs.__getitem__,
            planner=self._planner,
        )

    def _spent_s(self) -> float:
        return self.clock() - self._began_s

    def _plan_in(self, name: Configuration, time_s: float) -> Plan:
        """Return the plan by which a configuration is prepared for trainings of so many seconds."""
        if (kept := self.dataset.folds.kept_plan(name)) is not None:
            return kept
        pipeline = self.pipeline_of(name)
        limited = replace(pipeline, config=pipeline.config.revised(max_time_s=time_s))
        return plan_for(limited, self.dataset.spec, self.dataset.fingerprint)

    def _check_options(self, folds: FoldSelection) -> None:
        """Check the options against the manifest, before images are read."""
        self._check(self.named or ("2d",))
        for name in self.named:
            self.pipeline_of(name).check_manifest(folds.named)
        if not self.named:  # "auto" always offers slices, but not if the pretrained model has no network for them
            slices = self.pipeline_of("2d")
            config = slices.config.revised(pretrained=None, freeze_stages=0)
            replace(slices, config=config).check_manifest(folds.named)

    def _check(self, configurations: Sequence[Configuration]) -> None:
        for name in configurations:
            self.pipeline_of(name).check()

    @property
    def dataset(self) -> CheckedDataset:
        """The checked dataset."""
        assert self._dataset is not None  # for the type checker
        return self._dataset

    @property
    def results(self) -> Path:
        """Folder with the results of all configurations."""
        return self.pipeline.workspace.results_folder(self.pipeline.task, 3).parent

    def pipeline_of(self, name: Configuration) -> FoldPipeline:
        """Return the steps of one configuration, with the folds of all."""
        options = self.pipeline.plan_options
        if self._dataset is not None:
            options = self._dataset.folds.options(name, options)
        return replace(
            self.pipeline,
            configuration=name,
            dims=dims_of(name),
            config=self.configs[dims_of(name)],
            plan_options=options,
        )

    def run_folder(self, job: Job) -> Path:
        """Return the folder of a training."""
        return self.pipeline.workspace.run_folder(self.pipeline.task, job.configuration, job.fold)

    def plan_jobs(self) -> dict[Job, TrainConfig]:
        """Return every training with its settings, in the order in which they run. Everything about them is checked.

        Raises:
            OptionError: too little time, or settings that do not fit a configuration.
            OutputError: results of earlier commands were made with other settings or data.
            DecathleteError: see :meth:`ConfigurationChooser.choose`.
        """
        if self.configs[3].max_time_s is not None:
            self.pipeline.reporter.step("Plan each configuration for its share of the time")
        configurations = self._chooser.choose(self.named)
        self._check(configurations)
        jobs = self._planner.jobs(configurations)
        for name in configurations:  # a first stage has more folds
            require_held_out_cases(self.dataset.splits, [job.fold for job in jobs if job.configuration == name])
        configs = {job: self.configs[dims_of(job.configuration)] for job in jobs}
        if self.total_time_s is not None:
            configs = self._divide_time(configs, self.total_time_s)
        else:
            self.pipeline.reporter.step(_describe(jobs))
        if not self.pipeline.overwrite:
            self._check_earlier(configs)
        return configs

    def _divide_time(self, configs: Mapping[Job, TrainConfig], total_s: float) -> dict[Job, TrainConfig]:
        jobs = list(configs)
        shares = self._planner.shares(tuple(dict.fromkeys(job.configuration for job in jobs)))
        assert shares is not None  # for the type checker: the time is limited
        self.other = shares.other
        other_s = self._spent_s() + self.other.total_s([job.configuration for job in jobs])
        times = divide_time(total_s, self.started(jobs), jobs, other_s=other_s)
        self.pipeline.reporter.step(f"{_describe(jobs)}. {_describe_times(times, total_s)}")
        return {job: config.revised(max_time_s=times[job]) for job, config in configs.items()}

    def _check_earlier(self, configs: Mapping[Job, TrainConfig]) -> None:
        """Check that prepared data and runs of earlier commands can be resumed or kept."""
        begun = {job.configuration for job in configs if record_in(self.run_folder(job)) is not None}
        pipelines: dict[Configuration, FoldPipeline] = {}
        for job, config in configs.items():
            known = pipelines.get(job.configuration)
            if known is None or (config.max_time_s or 0.0) > (known.config.max_time_s or 0.0):
                pipelines[job.configuration] = replace(self.pipeline_of(job.configuration), config=config)
        PlannedRuns(
            pipeline=self.pipeline,
            configs=configs,
            folders={job: self.run_folder(job) for job in configs},
            plans=plan_preparations(pipelines, self.dataset.folds, self.dataset.spec, self.dataset.fingerprint, begun),
            splits=self.dataset.splits,
            fingerprint=self.dataset.fingerprint,
            results=self.results,
        ).check()

    def started(self, jobs: Sequence[Job]) -> dict[Job, float]:
        """Return the training times of jobs that were started before."""
        if self.pipeline.overwrite:
            return {}
        kept = {}
        for job in jobs:
            record = record_in(self.run_folder(job))
            if record is not None and record.config.max_time_s is not None:
                kept[job] = record.config.max_time_s
        return kept

    def total_time(self) -> TotalTime | None:
        """Return what keeps the total time; ``None`` without one, and for an executor, which runs folds at once."""
        if self.total_time_s is None or not isinstance(self.pipeline.workers, int):
            return None
        return TotalTime(
            self.total_time_s,
            self.other,
            self.results,
            forget=self.pipeline.overwrite,
            clock=self.clock,
            began_s=self._began_s,
        )

    def state(self, job: Job, config: TrainConfig) -> JobState:
        """Return the state of a job at the start: finished ones were scored by an earlier command."""
        expected_s = self.other.expected_s.get(job.configuration, 0.0)
        state = JobState(job=job, max_time_s=config.max_time_s, expected_scoring_s=expected_s)
        if self.pipeline.overwrite or not (self.run_folder(job) / "scores.json").is_file():
            return state
        try:
            scores = Scores.load(self.run_folder(job) / "scores.json")
        except DecathleteError:
            return state
        return replace(state, status="finished", share=1.0, dice=scores.headline.dice)


def _describe(jobs: Sequence[Job]) -> str:
    return f"{len(jobs)} trainings: {describe_jobs(jobs)}"


def _describe_times(times: Mapping[Job, float], total_s: float) -> str:
    each = " to ".join(format_duration(s) for s in sorted({min(times.values()), max(times.values())}))
    return (
        f"Each trains for {each}: together {sum(times.values()) / total_s:.0%} of {format_duration(total_s)}, the rest "
        "is for preparing, scoring and selecting"
    )
