"""Progress of several trainings on the command line: a table on a terminal, lines in a log."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from decathlete.cli.jobs_table import JobsReporter, describe_time_left, make_table
from decathlete.cli.progress import Bar
from decathlete.workflows.training_jobs import Job, JobState, time_left

STATES = [
    JobState(job=Job(configuration="2d", fold=0), status="finished", share=1.0, dice=0.8123, max_time_s=3600),
    JobState(job=Job(configuration="2d", fold=1), status="training", share=0.25, training_s=900, max_time_s=3600),
    JobState(job=Job(configuration="3d", fold=0), max_time_s=3600),
]


def shown(*, terminal: bool, states) -> str:
    text, reporter = io.StringIO(), JobsReporter()
    reporter.console = Console(file=text, force_terminal=terminal, width=100, color_system=None)
    for one in states:
        reporter.jobs_left(time_left(one))
        reporter.jobs(one)
    reporter.jobs_end()
    return text.getvalue()


def test_the_table_has_a_row_per_configuration_and_a_column_per_fold() -> None:
    text = io.StringIO()
    console = Console(file=text, width=100)
    console.print(make_table(STATES, left_s=6300.0))
    lines = text.getvalue().splitlines()
    assert lines[0].strip() == "1 of 3 trainings done, about 1 h 45 min left"
    assert [word in lines[2] for word in ("configuration", "fold 0", "fold 1")] == [True] * 3
    row = next(line for line in lines if " 2d " in line)
    assert "finished, Dice 0.812" in row
    assert "training 25 %" in row
    assert "waiting" in next(line for line in lines if " 3d " in line)


def test_a_terminal_gets_one_table_that_stays_at_the_end() -> None:
    done = [replace(state, status="finished", share=1.0, dice=0.9) for state in STATES]
    text = shown(terminal=True, states=[STATES, done])
    assert "3 of 3 trainings done" in text
    assert text.count("finished, Dice 0.900") >= 3


def test_a_log_gets_a_line_per_change() -> None:
    finished = [STATES[0], replace(STATES[1], status="finished", share=1.0, dice=0.9), STATES[2]]
    lines = shown(terminal=False, states=[STATES, STATES, finished]).splitlines()
    assert lines == ["2d fold 1: finished, Dice 0.900; 2 of 3 trainings done, about 1 h 0 min left"]


def test_nothing_is_left_at_the_end() -> None:
    assert describe_time_left([STATES[0]], 60.0) == "1 of 1 trainings done"


def test_cases_are_shown_below_the_table_while_it_is_there() -> None:
    """A second live display would fail, or move the cursor into the table."""
    text, reporter = io.StringIO(), JobsReporter()
    reporter.console = Console(file=text, force_terminal=True, width=100, color_system=None)
    reporter.jobs(STATES)
    progress = reporter.cases("prepare")
    progress(12, 40, "case_07")
    reporter.jobs_end()
    assert "prepare 12/40" in text.getvalue()
    assert text.getvalue().index("waiting") < text.getvalue().index("prepare 12/40")
    text.truncate(0)
    reporter.jobs(STATES)
    progress(40, 40, None)
    reporter.jobs_end()
    assert "prepare" not in text.getvalue(), "it is finished"


def test_the_time_left_of_a_second_round_of_cases_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bar shows the folds of a selection, one after the other."""
    clock = SimpleNamespace(now_s=0.0, monotonic=lambda: clock.now_s)
    monkeypatch.setattr("decathlete.cli.progress.time", clock)
    text = io.StringIO()
    bar = Bar(Console(file=text, width=100), "predict")
    for now_s, done in ((60.0, 8), (80.0, 1)):
        clock.now_s = now_s
        bar.cases(done, 8, None)
    assert text.getvalue().splitlines() == ["predict 8/8 in 1 min 0 s", "predict 1/8 in 20 s, about 2 min 20 s left"]
