"""Inputs that once failed fail cleanly, a small sample of every format does, and a killed command can be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from robustness import faults, kills
from robustness.formats import load_formats
from robustness.fuzz import choose_cases, read_seeds
from robustness.kills import Reference, kill_once, make_reference
from robustness.outcomes import EQUAL, Case, Outcome, causes
from robustness.pool import run_cases
from robustness.scenarios import SCENARIOS, make_inputs

SLOW = [name for name, form in load_formats().items() if form.weight < 1]
"""Formats whose honest input, or whose action, is a training."""

QUICK = [name for name in load_formats() if name not in SLOW]


def run_all(cases: Sequence[Case], folder: Path) -> list[Outcome]:
    """Memory is not compared here: a test must not depend on what else the machine does."""
    outcomes = run_cases(cases, workers=1, cache=folder / "cache", memory=False)
    assert len(outcomes) == len(cases)
    return outcomes


SEEDS = [seed for seed in read_seeds() if seed.format in QUICK]
SAMPLE = choose_cases(len(QUICK), formats=QUICK, first=1000)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """Those of SEEDS, then of SAMPLE, from one process: its imports take longer than the cases."""
    return run_all([*SEEDS, *SAMPLE], tmp_path_factory.mktemp("replay"))


def test_what_once_failed_fails_cleanly(outcomes):
    assert SEEDS
    assert causes(outcomes[: len(SEEDS)]) == ""


def test_a_small_sample_of_every_format(outcomes):
    assert len(SAMPLE) >= len(QUICK)
    assert causes(outcomes[len(SEEDS) :]) == ""


@pytest.mark.full
def test_a_sample_of_formats_that_need_a_training(tmp_path):
    seeds = [seed for seed in read_seeds() if seed.format in SLOW]
    assert causes(run_all([*seeds, *choose_cases(20, formats=SLOW, first=1000)], tmp_path)) == ""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    (scenario,) = (s for s in SCENARIOS if s.name == "evaluate")
    return make_reference(scenario, make_inputs("raw"), tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize("number", [0, 1], ids=["SIGKILL", "SIGTERM"])
def test_a_killed_command_is_repeated_with_equal_results(number, reference, tmp_path):
    outcome = kill_once(reference, number, tmp_path)
    assert (outcome.result, outcome.cause) == (EQUAL, "")


@pytest.mark.full
def test_kills_of_every_command(tmp_path):
    options = SimpleNamespace(only=None, kills=len(SCENARIOS), workers=1, first=0, json=None)
    assert kills.run(options) == 0


@pytest.mark.full
def test_faults_of_the_machine():
    options = SimpleNamespace(only=None, workers=1, json=None)
    assert faults.run(options) == 0
