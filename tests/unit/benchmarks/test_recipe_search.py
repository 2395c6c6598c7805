"""The search for a recipe: its arms train, and its table compares what belongs together."""

import json
import sys

import pytest

from benchmark_support import importable
from decathlete.training.config import TrainConfig
from decathlete.training.short_forms import SHORT_FORMS
from training_support import make_store


@pytest.fixture(autouse=True)
def recipe():
    """Its modules."""
    with importable("recipe"):
        yield


def test_every_arm_has_options_that_training_knows():
    from arms import ARMS

    for arm in ARMS.values():
        config = TrainConfig.make(**arm.config)
        flat = {SHORT_FORMS.get(name, name): value for name, value in arm.config.items()}
        chosen = {path: value_at(config, path) for path in flat}
        assert chosen == flat


def value_at(config, path):
    """The value at a dotted path; of a component alone its name."""
    for name in path.split("."):
        config = getattr(config, name)
    return getattr(config, "component", config)


def test_differences_are_between_runs_of_one_seed():
    from search import table

    def run(arm, seed, dice):
        return {"arm": arm, "seed": seed, "dice": dice, "steps": 100}

    records = [run("default", 1, 0.80), run("default", 2, 0.84), run("rate x 2", 2, 0.85)]
    line = next(line for line in table([records], names=["ball"]).splitlines() if line.startswith("| rate x 2 "))
    assert line == "| rate x 2 | 0.850 (1), 100 | +0.010 |"


def test_an_arm_is_trained_scored_and_not_trained_again(tmp_path, monkeypatch, capsys):
    import search

    make_store(tmp_path / "store")
    output = tmp_path / "found.jsonl"
    options = ["--store", tmp_path / "store", "--fold", "0", "--budget", "0.5", "--val-cases", "1"]
    options += ["--arms", "augmentation x 0.5", "AdamW, second moment 0.98", "--output", output]
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    monkeypatch.setattr(sys, "argv", ["search.py", *map(str, options)])
    search.main()
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["arm"] for record in found] == ["augmentation x 0.5", "AdamW, second moment 0.98"]
    assert all(0 <= record["dice"] <= 1 and record["steps"] >= 4 for record in found)
    search.main()
    assert len(output.read_text().splitlines()) == 2
