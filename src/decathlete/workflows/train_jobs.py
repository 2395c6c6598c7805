"""Train and score the folds of a study, one configuration after the other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace

from decathlete.core.choices import Configuration
from decathlete.errors import DecathleteError, FoldsFailedError, InterruptedRunError
from decathlete.planning.configurations import dims_of
from decathlete.training.config import TrainConfig
from decathlete.workflows.budget import fold_needs
from decathlete.workflows.cross_validate import describe_failure, write_summary
from decathlete.workflows.fold import FoldPipeline, FoldResult
from decathlete.workflows.fold_tasks import FoldOutcome, attempt_fold, run_folds
from decathlete.workflows.job_limits import JobLimits
from decathlete.workflows.jobs_progress import JobsProgress
from decathlete.workflows.study import Study
from decathlete.workflows.training_jobs import Job

SAME_REASON = "not run, for the same reason"

log = logging.getLogger(__name__)


def train_jobs(study: Study, configs: Mapping[Job, TrainConfig]) -> tuple[Configuration, ...]:
    """Train and score everything that is missing; return the configurations that were not left out.

    Args:
        configs: every training with its settings (:meth:`Study.plan_jobs`).

    Raises:
        FoldsFailedError: some trainings failed; the others were run.
    """
    reporter = study.pipeline.reporter
    progress = JobsProgress(
        [study.state(job, config) for job, config in configs.items()],
        reporter,
        selection_s=study.other.selection_after,
        at_once=_count_at_once(study.pipeline),
    )
    progress.report()
    limits = JobLimits(
        study.total_time(),
        planned_s={job: config.max_time_s for job, config in configs.items()},
        kept=study.started(list(configs)),
        may_leave_out=not study.named,
        progress=progress,
    )
    failures: dict[str, str] = {}
    try:
        for name in dict.fromkeys(job.configuration for job in configs):
            if not limits.is_left_out(name):
                mine = {job: config for job, config in configs.items() if job.configuration == name}
                failures |= _train_configuration(study, name, mine, progress, limits)
    finally:
        reporter.jobs_end()
    if failures:
        n_done = sum(state.status == "finished" for state in progress.states)
        raise FoldsFailedError(failures, n_done=n_done)
    return tuple(dict.fromkeys(state.job.configuration for state in progress.states))


def _count_at_once(pipeline: FoldPipeline) -> int:
    """Return how many folds are trained at the same time."""
    if isinstance(pipeline.workers, int):
        return 1
    return max(pipeline.workers.count_at_once(fold_needs(pipeline.config, pipeline.fold_resources)), 1)


def _train_configuration(
    study: Study,
    name: Configuration,
    configs: Mapping[Job, TrainConfig],
    progress: JobsProgress,
    limits: JobLimits,
) -> dict[str, str]:
    """Run the folds of one configuration; return job -> message of those that failed."""
    finished: dict[int, FoldResult] = {}
    failures: dict[Job, str] = {}
    config = study.configs[dims_of(name)].revised(max_time_s=limits.plan_time(name))
    pipeline = replace(study.pipeline_of(name), config=config, reporter=progress)
    began_s = study.clock()
    try:
        with pipeline.locked_store() as store, pipeline.locked_folds([job.fold for job in configs]):
            limits.add_preparing(name, study.clock() - began_s)
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
        progress.begin_together(jobs)
        try:
            for fold, outcome in run_folds(limited, list(by_fold), plan_time_s=pipeline.config.max_time_s):
                yield by_fold[fold], outcome
        finally:
            progress.end_together()
