"""The total time of several trainings is kept, whatever scoring takes; a repeated command counts what was used."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from decathlete.core.choices import Configuration
from decathlete.training.config import TrainConfig
from decathlete.workflows import train_jobs
from decathlete.workflows.fold import FoldPipeline
from decathlete.workflows.job_limits import LEAST_SHARE, JobLimits
from decathlete.workflows.jobs_progress import JobsProgress
from decathlete.workflows.progress import ProgressReporter
from decathlete.workflows.total_time import PAIR_SHARE, OtherWork, TimeRecord, TotalTime
from decathlete.workflows.training_jobs import COMPARABLE_SHARE, Job, JobState, divide_time, list_jobs

TOTAL_S = 1000.0
NAMES: tuple[Configuration, ...] = ("2d", "3d")


class Killed(Exception):
    pass


class SimulatedClock:
    """A clock that moves only when a test moves it; the command is killed when it reaches ``ends_s``."""

    def __init__(self, ends_s: float = float("inf")) -> None:
        self.now_s, self._ends_s = 50.0, ends_s

    def __call__(self) -> float:
        return self.now_s

    def pass_time(self, seconds: float) -> None:
        self.now_s = min(self.now_s + seconds, self._ends_s)
        if self.now_s == self._ends_s:
            raise Killed


@dataclass(frozen=True, kw_only=True)
class Work:
    """How long everything takes in truth, in seconds, and what is expected of it."""

    scoring_s: float
    expected_s: float
    start_s: float = 0.0  # of the first scoring
    preparing_s: float = 10.0
    n_folds: int = 2
    names: tuple[Configuration, ...] = NAMES
    may_leave_out: bool = True

    @property
    def other(self) -> OtherWork:
        return OtherWork(expected_s=dict.fromkeys(self.names, self.expected_s), n_folds=self.n_folds)

    @property
    def jobs(self) -> list[Job]:
        return list_jobs(self.names, range(self.n_folds), n_folds=self.n_folds)


@dataclass
class Outcome:
    """What the commands did: the time that all took, and that of each training."""

    used_s: float = 0.0
    trained: dict[Job, float] = field(default_factory=dict)
    saved: dict[Job, float] = field(default_factory=dict)
    finished: set[Job] = field(default_factory=set)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(job.configuration for job in self.trained))


def run_command(folder: Path, work: Work, outcome: Outcome, *, killed_after_s: float = float("inf")) -> None:
    """Simulate one command as ``run_configurations`` runs it, up to the end of the selection or until it is killed."""
    clock = SimulatedClock(50.0 + killed_after_s)
    kept = dict(outcome.trained)
    other_s = work.other.total_s([job.configuration for job in work.jobs])
    planned = divide_time(TOTAL_S, kept, work.jobs, other_s=other_s)
    states = [JobState(job=job, max_time_s=planned[job]) for job in work.jobs]
    states = [replace(s, status="finished", share=1.0) if s.job in outcome.finished else s for s in states]
    progress = JobsProgress(states, ProgressReporter(), clock=clock)
    limits = JobLimits(
        TotalTime(TOTAL_S, work.other, folder, clock=clock),
        planned_s=dict(planned),
        kept=kept,
        may_leave_out=work.may_leave_out,
        progress=progress,
    )
    try:
        for name in work.names:
            if not limits.is_left_out(name):
                _train(name, work, outcome, limits, progress, clock)
        clock.pass_time(_selection_s(work, len({job.configuration for job in outcome.trained})))
    except Killed:
        pass
    outcome.used_s += clock.now_s - 50.0


def _train(
    name: Configuration,
    work: Work,
    outcome: Outcome,
    limits: JobLimits,
    progress: JobsProgress,
    clock: SimulatedClock,
) -> None:
    began_s = clock()
    if name not in outcome.names:
        clock.pass_time(work.preparing_s)
    limits.add_preparing(name, clock() - began_s)
    for job in [job for job in work.jobs if job.configuration == name]:
        seconds = limits.limit(job)
        assert seconds is not None
        progress.begin(job)
        if job not in outcome.finished:
            outcome.trained[job] = seconds
            progress.training()
            _resume(job, seconds, outcome, clock)
            progress.on_step(9, 1.0)
            clock.pass_time(work.scoring_s + (0.0 if outcome.finished else work.start_s))
            outcome.finished.add(job)
        progress.finish(job, dice=0.9)
        limits.add_finished(job)


def _resume(job: Job, seconds: float, outcome: Outcome, clock: SimulatedClock) -> None:
    """Train from where the last command was killed."""
    began_s, before_s = clock(), outcome.saved.get(job, 0.0)
    try:
        clock.pass_time(seconds - before_s)
    finally:
        outcome.saved[job] = before_s + clock() - began_s


def _selection_s(work: Work, n_configurations: int) -> float:
    """Both configurations of the pair predict every case, and the selected model is scored."""
    return work.n_folds * work.scoring_s * (2 * PAIR_SHARE + 1 if n_configurations == 2 else 1)


@pytest.mark.parametrize("expected_s", [5.0, 20.0, 60.0])
@pytest.mark.parametrize("scoring_s", [1.0, 20.0, 40.0, 60.0, 90.0])
def test_the_total_time_is_kept_whatever_scoring_takes(tmp_path: Path, scoring_s: float, expected_s: float) -> None:
    outcome = Outcome()
    run_command(tmp_path, Work(scoring_s=scoring_s, expected_s=expected_s), outcome)
    assert outcome.used_s <= TOTAL_S
    assert len(outcome.finished) == 2 * len(outcome.names)
    longest, shortest = max(outcome.trained.values()), min(outcome.trained.values())
    assert shortest >= COMPARABLE_SHARE * longest, "trainings can be compared"


def test_a_correct_expectation_changes_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outcome = Outcome()
    with caplog.at_level(logging.WARNING, logger="decathlete"):
        run_command(tmp_path, Work(scoring_s=30.0, expected_s=30.0), outcome)
    planned_s = (TOTAL_S - 4 * 30 - _selection_s(Work(scoring_s=30.0, expected_s=30.0), 2)) / 4
    assert all(planned_s - 6 < seconds <= planned_s for seconds in outcome.trained.values()), "less 20 s of preparing"
    assert not caplog.text
    assert outcome.used_s <= TOTAL_S


@pytest.mark.parametrize(("scoring_s", "used"), [(20.0, 0.9), (8.0, 0.9)])
def test_time_that_scoring_did_not_use_goes_to_later_trainings(
    tmp_path: Path, scoring_s: float, used: float, caplog: pytest.LogCaptureFixture
) -> None:
    work, outcome = Work(scoring_s=scoring_s, expected_s=30.0), Outcome()
    with caplog.at_level(logging.INFO, logger="decathlete"):
        run_command(tmp_path, work, outcome)
    first, *later = outcome.trained.values()
    assert all(seconds > first for seconds in later)
    assert max(later) <= first / COMPARABLE_SHARE
    assert used * TOTAL_S < outcome.used_s <= TOTAL_S
    assert "preparing and scoring have left time" in caplog.text


def test_a_scoring_that_another_program_slowed_down_is_forgotten(tmp_path: Path) -> None:
    """The reserve of later trainings follows what scoring takes now, not the longest time that it has taken."""
    work, outcome = Work(scoring_s=5.0, start_s=60.0, expected_s=30.0), Outcome()
    run_command(tmp_path, work, outcome)
    assert 0.9 * TOTAL_S < outcome.used_s <= TOTAL_S
    first, shortened, *later = outcome.trained.values()
    assert shortened < first < min(later)


def test_a_training_is_not_longer_than_twice_the_shortest(tmp_path: Path) -> None:
    outcome = Outcome()
    run_command(tmp_path, Work(scoring_s=1.0, expected_s=90.0, n_folds=1), outcome)
    assert max(outcome.trained.values()) == min(outcome.trained.values()) / COMPARABLE_SHARE


@pytest.mark.parametrize("killed_after_s", [150, 300, 450, 600, 750, 890])
def test_repeated_commands_use_what_scoring_left_and_no_more(tmp_path: Path, killed_after_s: float) -> None:
    work, outcome = Work(scoring_s=5.0, expected_s=40.0), Outcome()
    run_command(tmp_path, work, outcome, killed_after_s=killed_after_s)
    began = dict(outcome.trained)
    run_command(tmp_path, work, outcome)
    assert {job: outcome.trained[job] for job in began} == began, "a training that was started keeps its time"
    assert len(outcome.finished) == 4
    assert max(outcome.trained.values()) <= min(outcome.trained.values()) / COMPARABLE_SHARE
    assert outcome.used_s <= TOTAL_S + 2 * work.scoring_s


def test_folds_of_an_executor_get_the_plan_of_those_that_were_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier command has begun fold 0; the plan is made for its time, whatever the others get."""
    jobs = list_jobs(["2d"], range(3), n_folds=3)
    configs = {job: TrainConfig(max_time_s=time_s) for job, time_s in zip(jobs, (100.0, 60.0, 60.0), strict=True)}
    asked = []

    def run_folds(pipeline: FoldPipeline, folds: list[int], *, plan_time_s: float) -> list[tuple[int, Exception]]:
        asked.append((pipeline.config.max_time_s, folds, plan_time_s))
        return [(fold, ValueError()) for fold in folds]

    monkeypatch.setattr(train_jobs, "run_folds", run_folds)
    progress = JobsProgress([JobState(job=job) for job in jobs], ProgressReporter())
    limits = JobLimits(None, planned_s={}, kept={}, may_leave_out=True, progress=progress)
    pipeline = FoldPipeline(task="x", workers=object(), config=TrainConfig(max_time_s=100.0))  # type: ignore[arg-type]
    done = [job for job, _ in train_jobs.run_jobs(pipeline, configs, progress, limits)]
    assert done == jobs
    assert asked == [(100.0, [0], 100.0), (60.0, [1, 2], 100.0)]


def test_a_configuration_without_time_is_left_out_and_a_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = Outcome()
    with caplog.at_level(logging.WARNING, logger="decathlete"):
        run_command(tmp_path, Work(scoring_s=90.0, expected_s=5.0), outcome)
    assert outcome.names == ["2d"]
    assert "3d is left out: preparing, scoring and selecting take longer than expected" in caplog.text


def test_the_slow_start_of_the_first_scoring_leaves_nothing_out(tmp_path: Path) -> None:
    outcome = Outcome()
    run_command(tmp_path, Work(scoring_s=30.0, start_s=60.0, expected_s=20.0), outcome)
    assert outcome.names == ["2d", "3d"]
    assert min(outcome.trained.values()) > COMPARABLE_SHARE * max(outcome.trained.values())
    assert 0.9 * TOTAL_S < outcome.used_s <= TOTAL_S


def test_named_configurations_are_shortened_and_never_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work, outcome = Work(scoring_s=60.0, expected_s=20.0, may_leave_out=False), Outcome()
    with caplog.at_level(logging.WARNING, logger="decathlete"):
        run_command(tmp_path, work, outcome)
    assert outcome.names == ["2d", "3d"]
    assert outcome.used_s <= TOTAL_S
    assert "2d fold 1: training takes" in caplog.text
    assert "will be exceeded" not in caplog.text


def test_a_time_that_cannot_be_kept_is_said_before_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = Outcome()
    with caplog.at_level(logging.WARNING, logger="decathlete"):
        run_command(tmp_path, Work(scoring_s=400.0, expected_s=5.0, may_leave_out=False), outcome)
    assert "--total-time will be exceeded" in caplog.text
    assert min(outcome.trained.values()) >= int(LEAST_SHARE * max(outcome.trained.values()))


@pytest.mark.parametrize("killed_after_s", [5, 100, 215, 230, 300, 500, 700])
def test_repeated_commands_keep_the_total_time_together(tmp_path: Path, killed_after_s: float) -> None:
    work, outcome = Work(scoring_s=40.0, expected_s=20.0), Outcome()
    run_command(tmp_path, work, outcome, killed_after_s=killed_after_s)
    began = dict(outcome.trained)
    run_command(tmp_path, work, outcome)
    assert {job: outcome.trained[job] for job in began} == began, "a training that was started keeps its time"
    assert len(outcome.finished) == 2 * len(outcome.names)
    assert outcome.used_s <= TOTAL_S + 2 * work.scoring_s, "only scoring that was interrupted is done again"


def test_times_of_results_that_are_replaced_do_not_count(tmp_path: Path) -> None:
    run_command(tmp_path, Work(scoring_s=40.0, expected_s=20.0), Outcome())
    states = [JobState(job=job) for job in Work(scoring_s=1, expected_s=1).jobs]
    other = Work(scoring_s=1, expected_s=20.0).other
    remembered = TotalTime(TOTAL_S, other, tmp_path, clock=SimulatedClock())
    forgotten = TotalTime(TOTAL_S, other, tmp_path, clock=SimulatedClock(), forget=True)
    assert remembered.left_s(states, {}) < forgotten.left_s(states, {}) == TOTAL_S
    assert forgotten.other_s(states) < remembered.other_s(states), "as expected before anything was measured"


def test_a_damaged_record_of_times_is_like_none(tmp_path: Path) -> None:
    (tmp_path / "total_time.json").write_text('{"version": 1, "jobs": {')
    states = [JobState(job=job) for job in Work(scoring_s=1, expected_s=1).jobs]
    total = TotalTime(TOTAL_S, Work(scoring_s=1, expected_s=20.0).other, tmp_path, clock=SimulatedClock())
    assert total.left_s(states, {}) == TOTAL_S


def test_the_record_holds_the_times_of_finished_work(tmp_path: Path) -> None:
    outcome = Outcome()
    run_command(tmp_path, Work(scoring_s=20.0, expected_s=20.0), outcome)
    record = TimeRecord.load(tmp_path / "total_time.json")
    assert record.preparing == {"2d": 10.0, "3d": 10.0}
    assert {name: time.scoring_s for name, time in record.jobs.items()} == {str(job): 20.0 for job in outcome.trained}
    assert {name: time.training_s for name, time in record.jobs.items()} == {
        str(job): seconds for job, seconds in outcome.trained.items()
    }


def test_what_was_not_measured_deviates_as_what_was() -> None:
    other = OtherWork(expected_s={"2d": 10.0, "3d": 30.0}, n_folds=5, tests_per_held_out=0.5)
    assert other.scoring_s({}) == {"2d": 10.0, "3d": 30.0}
    scoring_s = other.scoring_s({"2d": [22.0, 20.0]})
    assert scoring_s == {"2d": 20.0, "3d": 60.0}
    assert other.scoring_s({"2d": [40.0]}) == {"2d": 20.0, "3d": 60.0}, "one fold may have been slow by chance"
    assert other.selection_s(scoring_s, ["2d"]) == 5 * (20 + 0.5 * 20)
    assert other.selection_s(scoring_s, ["2d", "3d"]) == 5 * (PAIR_SHARE * 80 + 60 + 0.5 * 60)
    alone = replace(other, has_pairs=False)
    assert alone.selection_s(scoring_s, ["2d", "3d"]) == 5 * (60 + 0.5 * 60)


def test_the_time_of_a_selection_follows_what_scoring_took() -> None:
    other = OtherWork(expected_s={}, n_folds=2)
    waiting = [JobState(job=job) for job in Work(scoring_s=1, expected_s=1).jobs]
    assert other.selection_after(waiting) == 0.0, "nothing is known yet"
    finished = [replace(state, status="finished", share=1.0, training_s=100.0, total_s=120.0) for state in waiting]
    assert other.selection_after(finished) == pytest.approx(2 * (PAIR_SHARE * 40 + 20))
    assert other.selection_after([*finished[1:], replace(waiting[0], status="failed")]) == 0.0, "nothing is selected"


def test_later_folds_get_the_plan_of_those_that_an_earlier_command_began(tmp_path: Path) -> None:
    other = Work(scoring_s=1, expected_s=20.0).other
    first = TotalTime(TOTAL_S, other, tmp_path, clock=SimulatedClock())
    assert first.plan_time("3d", 3000.0, is_begun=False) == 3000.0
    repeated = TotalTime(TOTAL_S, other, tmp_path, clock=SimulatedClock())
    assert repeated.plan_time("3d", 2880.0, is_begun=True) == 3000.0
    assert repeated.plan_time("2d", 60.0, is_begun=True) == 60.0, "of an earlier release"
    assert repeated.plan_time("3d", 2880.0, is_begun=False) == 2880.0, "nothing was begun"
