"""The time of several trainings: equal shares, kept when a command is repeated, and what is left of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from decathlete.errors import OptionError
from decathlete.workflows.jobs_progress import JobsProgress
from decathlete.workflows.progress import ProgressReporter
from decathlete.workflows.training_jobs import (
    TRAINING_SHARE,
    Job,
    JobState,
    divide_time,
    parse_configurations,
    time_left,
)

JOBS = [Job(configuration=name, fold=fold) for name in ("2d", "3d") for fold in range(5)]


def test_every_training_gets_the_same_time():
    times = divide_time(36_000, {}, JOBS)
    assert set(times) == set(JOBS)
    assert set(times.values()) == {3060.0}
    assert sum(times.values()) <= TRAINING_SHARE * 36_000


@pytest.mark.parametrize("total_s", [1000, 36_000, 100.7])
@pytest.mark.parametrize("n_started", range(10))
def test_a_repeated_command_divides_as_before(total_s, n_started):
    """Otherwise a resumed training would have other settings than the record in its folder."""
    first = divide_time(total_s, {}, JOBS)
    kept = {job: first[job] for job in JOBS[:n_started]}
    assert divide_time(total_s, kept, JOBS) == first


def test_what_is_left_is_divided_among_new_trainings():
    """Five folds were trained for 10 minutes each; a second configuration gets the rest of two hours."""
    kept = dict.fromkeys(JOBS[:5], 600.0)
    times = divide_time(7200, kept, JOBS)
    assert {times[job] for job in JOBS[:5]} == {600.0}
    assert {times[job] for job in JOBS[5:]} == {float(int((TRAINING_SHARE * 7200 - 3000) / 5))}


def test_trainings_that_used_what_others_left_do_not_stop_the_rest():
    """Four of five trainings got more than their share, since scoring took hardly any time."""
    times = divide_time(1000, dict.fromkeys(JOBS[:4], 220.0), JOBS[:5])
    assert times[JOBS[4]] == 85.0, "half an equal share, which is changed when it begins"
    assert divide_time(1000, dict.fromkeys(JOBS[:4], 240.0), JOBS[:5])[JOBS[4]] == 40.0, "no more than there is"


def test_another_fold_gets_the_time_of_the_folds_before_it():
    """With another time, it would have another plan than they."""
    times = divide_time(7200, dict.fromkeys(JOBS[:2], 400.0), JOBS)
    assert {times[job] for job in JOBS[2:5]} == {400.0}
    assert {times[job] for job in JOBS[5:]} == {665.0}


def test_scoring_and_selecting_are_left_out_of_the_time_of_trainings():
    assert set(divide_time(1000, {}, JOBS, other_s=400).values()) == {60.0}
    assert set(divide_time(1000, {}, JOBS, other_s=20).values()) == {85.0}, "at most 85 %"
    assert set(divide_time(1000, {}, JOBS, other_s=5000).values()) == {25.0}, "at least a quarter"


def test_further_folds_get_the_time_that_the_plan_was_made_for():
    """The second fold began late and got less time than the first."""
    times = divide_time(7200, {JOBS[0]: 400.0, JOBS[1]: 300.0}, JOBS)
    assert {times[job] for job in JOBS[2:5]} == {400.0}


def test_too_little_time_is_an_error_and_none_for_finished_ones_is_not():
    with pytest.raises(OptionError, match="leaves no time for 10 of 10 trainings"):
        divide_time(8, {}, JOBS)
    with pytest.raises(OptionError, match="5 of 10"):
        divide_time(7200, dict.fromkeys(JOBS[:5], 1500.0), JOBS)
    assert divide_time(60, dict.fromkeys(JOBS, 600.0), JOBS) == dict.fromkeys(JOBS, 600.0)


def test_the_time_left_counts_what_is_open_and_what_follows_a_training():
    waiting = [JobState(job=job, max_time_s=100) for job in JOBS]
    assert time_left(waiting) == 1000
    assert time_left([replace(state, expected_scoring_s=7.0) for state in waiting]) == 1070
    finished = replace(waiting[0], status="finished", share=1.0, training_s=100, total_s=130)
    training = replace(waiting[1], status="training", share=0.25, training_s=25)
    assert time_left([finished, training, *waiting[2:4]]) == 75 + 200 + 3 * 30
    assert time_left([finished, replace(training, status="failed")]) == 0


def test_the_time_of_trainings_by_epochs_is_estimated_from_the_first():
    states = [JobState(job=job) for job in JOBS[:2]]
    assert time_left(states) is None, "nothing is known yet"
    half = replace(states[0], status="training", share=0.5, training_s=50)
    assert time_left([half, states[1]]) == 50 + 100


class SimulatedClock:
    """A clock that moves only when a test moves it."""

    now_s = 1000.0

    def __call__(self):
        return self.now_s


class RecordedProgress(ProgressReporter):
    def __init__(self):
        self.states, self.steps = [], []

    def step(self, title):
        self.steps.append(title)

    def jobs_left(self, seconds):
        self.left_s = seconds

    def jobs(self, states):
        self.states.append([(str(s.job), s.status) for s in states])


def test_the_progress_of_one_training_after_the_other_becomes_one_state_of_all():
    clock, heard = SimulatedClock(), RecordedProgress()
    progress = JobsProgress([JobState(job=job, max_time_s=10) for job in JOBS[:2]], heard, clock=clock)
    progress.step("Prepare")
    progress.begin(JOBS[0])
    progress.step("Train fold 0")
    progress.training()
    clock.now_s += 4
    progress.on_step(3, 0.4)
    assert progress.states[0].share == 0.4
    assert time_left(progress.states) == pytest.approx(6 + 10)
    clock.now_s += 6
    progress.on_step(9, 1.0)
    progress.cases("predict")
    clock.now_s += 5
    progress.finish(JOBS[0], dice=0.9)
    assert (progress.states[0].dice, progress.states[0].total_s) == (0.9, 15)
    assert time_left(progress.states) == pytest.approx(10 + 5)
    progress.begin(JOBS[1])
    progress.fail(JOBS[1])
    assert heard.steps == ["Prepare"], "steps of single trainings are in the table"
    seen = [states[0][1] for states in heard.states]
    assert list(dict.fromkeys(seen)) == ["training", "scoring", "finished"]
    assert heard.states[-1] == [("2d fold 0", "finished"), ("2d fold 1", "failed")]


def test_an_executor_runs_several_jobs_at_once_and_the_selection_follows():
    clock, heard = SimulatedClock(), RecordedProgress()
    states = [JobState(job=job, max_time_s=10) for job in JOBS[:3]]
    progress = JobsProgress(states, heard, selection_s=lambda _: 8.0, at_once=2, clock=clock)

    def statuses():
        return [state.status for state in progress.states]

    progress.begin_together(JOBS[:3])
    assert (statuses(), heard.left_s) == (["running", "running", "waiting"], 30 / 2 + 8 / 2)
    clock.now_s += 12
    progress.finish(JOBS[0], dice=0.9)
    assert (statuses(), heard.left_s) == (["finished", "running", "running"], 10 + 2 + 8 / 2), "scoring took 2 s"
    progress.fail(JOBS[1])
    clock.now_s += 5
    progress.report()
    assert (statuses(), heard.left_s) == (["finished", "failed", "running"], 7 + 8 / 2)
    progress.finish(JOBS[2], dice=0.9)
    assert [(s.training_s, s.total_s) for s in progress.states if s.status == "finished"] == [(10, 12), (5, 5)]


def test_an_executor_that_has_failed_begins_no_more_jobs():
    progress = JobsProgress([JobState(job=job) for job in JOBS[:3]], RecordedProgress(), clock=SimulatedClock())
    progress.begin_together(JOBS[:3])
    progress.end_together()
    progress.fail(JOBS[0])
    assert [state.status for state in progress.states] == ["failed", "waiting", "waiting"]


def test_scoring_alone_is_measured_too():
    """An earlier command was killed while it scored: its training is not repeated."""
    clock = SimulatedClock()
    progress = JobsProgress([JobState(job=JOBS[0], max_time_s=10)], RecordedProgress(), clock=clock)
    progress.begin(JOBS[0])
    progress.training()
    progress.cases("predict")
    clock.now_s += 5
    progress.finish(JOBS[0], dice=0.9)
    assert (progress.states[0].training_s, progress.states[0].total_s) == (0, 5)


def test_a_training_that_was_finished_before_stays_finished_while_its_files_are_checked():
    heard = RecordedProgress()
    finished = JobState(job=JOBS[0], status="finished", share=1.0, dice=0.9)
    progress = JobsProgress([finished, JobState(job=JOBS[1])], heard, clock=SimulatedClock())
    progress.begin(JOBS[0])
    progress.training()
    progress.cases("predict")
    progress.finish(JOBS[0], dice=0.9)
    assert {states[0][1] for states in heard.states} == {"finished"}
    assert progress.states[0].total_s is None, "it took no time in this command"
    progress.begin(JOBS[0])
    progress.training()
    progress.on_step(0, 0.1)
    assert progress.states[0].status == "training", "it is trained again after all"


def test_configurations_are_named_or_chosen_by_the_planner():
    assert parse_configurations("auto") == ()
    assert parse_configurations("3d,2d") == ("2d", "3d")
    assert parse_configurations(["3d_cascade"]) == ("3d_lowres", "3d_cascade"), "the first stage comes first"
    with pytest.raises(OptionError, match="no configuration called '4d'"):
        parse_configurations("2d,4d")
