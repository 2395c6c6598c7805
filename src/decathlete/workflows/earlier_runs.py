"""Check that the runs of earlier commands can be kept or resumed, before several trainings begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from decathlete.core.choices import Configuration
from decathlete.dataset.splits import Splits
from decathlete.errors import DecathleteError, OutputError
from decathlete.planning.fingerprint import Fingerprint
from decathlete.planning.plan import Plan
from decathlete.training.config import TrainConfig
from decathlete.training.reporting.records import RunRecord
from decathlete.training.run_folder import RUN, check_config, record_in
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.scores_reuse import different_scores
from decathlete.workflows.train import make_training_plan
from decathlete.workflows.training_jobs import Job, describe_jobs


@dataclass(frozen=True, kw_only=True)
class PlannedRuns:
    """The trainings of a command.

    Attributes:
        configs: settings of each training.
        folders: folder of each training.
        plans: configuration -> plan of its prepared data, as far as it is known.
        fingerprint: fingerprint of the dataset.
        results: folder of all results, for errors.
    """

    pipeline: FoldPipeline
    configs: Mapping[Job, TrainConfig]
    folders: Mapping[Job, Path]
    plans: Mapping[Configuration, Plan]
    splits: Splits
    fingerprint: Fingerprint
    results: Path

    def check(self) -> None:
        """Check settings against the plans, and existing runs and scores against what this command would make.

        Raises:
            OptionError: settings that a plan cannot be trained with.
            OutputError: runs or scores were made with other settings or data; the error lists all of them.
        """
        for job, config in self.configs.items():
            if (plan := self.plans.get(job.configuration)) is not None:
                has_validation = bool(self.splits.folds[job.fold].val)
                check_config(config, plan, has_validation=has_validation, where=self.results)
        if runs := self._describe(self._run_differences):
            raise OutputError(
                f"contains runs that were made with different settings or data: {runs}",
                where=self.results,
                remedy="use the same options to keep them, or --overwrite to train everything again; to compare what "
                f"is trained, run `decathlete select {self.results}`",
                code="E-OUTPUT-EXISTS",
            )
        if scores := self._describe(self._score_differences):
            raise OutputError(
                f"contains scores that were made with different settings: {scores}",
                where=self.results,
                remedy="use the same options to keep them, or replace them with `decathlete validate --model RUN "
                "--overwrite` and the options of this command",
                code="E-OUTPUT-EXISTS",
            )

    def _describe(self, differences: Callable[[Job], list[str]]) -> str:
        """Return the jobs with differences, in words; those with the same differences together."""
        found: dict[str, list[Job]] = {}
        for job in self.configs:
            if described := differences(job):
                found.setdefault("; ".join(described), []).append(job)
        return ". ".join(f"{describe_jobs(jobs)}: {differences}" for differences, jobs in found.items())

    def _run_differences(self, job: Job) -> list[str]:
        record = record_in(self.folders[job])
        if record is None:
            return []
        found = record.config.differences(self.configs[job])
        if record.dataset_digest != self.fingerprint.dataset_digest:
            found.append("another dataset")
        if set(record.val) != set(self.splits.folds[job.fold].val):
            found.append("other held-out cases")
        prepared = self.plans.get(job.configuration)
        if prepared is not None and record.plan is not None and record.store_plan_digest != prepared.digest:
            found += self._plan_differences(job, record.plan, prepared)
        return found

    def _plan_differences(self, job: Job, trained: Plan, prepared: Plan) -> list[str]:
        plan = make_training_plan(
            prepared,
            self.configs[job],
            n_cases=len(self.fingerprint.cases),
            adapt=self.pipeline.adapt,
            warn=False,
        )
        fields = trained.differing_fields(plan)
        return [f"another plan ({', '.join(fields)})"] if fields else []

    def _score_differences(self, job: Job) -> list[str]:
        return different_scores(
            self.folders[job], metrics=self.pipeline.metrics, window=self.pipeline.predict_options.window
        )


def check_replaced_plan(pipeline: FoldPipeline, plan: Plan) -> None:
    """Check that prepared data may get another plan: that no run was made with the plan that they have.

    Without options of the plan, runs are resumed with the plan of the prepared data.

    Args:
        plan: by which the data will be prepared.

    Raises:
        OutputError: the results of the configuration contain runs that were made with the plan that would be replaced.
    """
    there = None if pipeline.overwrite else _load_plan(pipeline.prepared / "plan.json")
    if there is None or there.fingerprint_digest != plan.fingerprint_digest:  # runs of other data cannot be resumed
        return
    fields = there.differing_fields(plan)
    runs = [run.parent for run in sorted(pipeline.results.glob("fold_*/run.json"))] if fields else []
    if names := [run.name for run in runs if _is_made_with(run, there)]:
        raise OutputError(
            f"contains runs that were made with different settings: {', '.join(names)}: another plan "
            f"({', '.join(fields)})",
            where=pipeline.results,
            remedy="use the same options to keep them; or other folders, also for the prepared data (--prepared and "
            "--results); or --overwrite to replace the plan",
            code="E-OUTPUT-EXISTS",
        )


def _load_plan(path: Path) -> Plan | None:
    with suppress(DecathleteError):  # absent, or damaged
        return Plan.load(path)
    return None


def _is_made_with(run: Path, prepared: Plan) -> bool:
    """Return whether a run was made with the plan of the prepared data; false if its record is damaged."""
    with suppress(DecathleteError):
        return RunRecord.load(run / RUN).store_plan_digest == prepared.digest
    return False
