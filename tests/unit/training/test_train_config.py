"""Options of training."""

from __future__ import annotations

import pytest

from decathlete.errors import OptionError
from decathlete.training.config import TrainConfig


def test_problems_are_reported_together():
    with pytest.raises(OptionError) as caught:
        TrainConfig.make(epochs=0, optimizer="lion", learning_rate=-1)
    for name in ("epochs", "optimizer", "learning_rate"):
        assert name in str(caught.value)


def test_one_budget_only():
    with pytest.raises(OptionError, match="not both"):
        TrainConfig.make(epochs=3, max_time_s=10)


def test_defaults_follow_the_optimizer():
    sgd, adamw = TrainConfig(), TrainConfig(optimizer="adamw")
    assert (sgd.peak_learning_rate, sgd.clip, sgd.decay, sgd.momentum) == (0.1, 12.0, 3e-5, 0.9)
    assert (adamw.peak_learning_rate, adamw.clip) == (5e-3, 1.0)
    assert TrainConfig(learning_rate=0.3, gradient_clip=0).peak_learning_rate == 0.3
    assert TrainConfig(gradient_clip=0).clip == 0


def test_length():
    assert TrainConfig().total_steps == 250_000
    assert TrainConfig(epochs=2, steps_per_epoch=7).total_steps == 14
    assert TrainConfig(max_time_s=60).total_steps is None
    assert TrainConfig(max_time_s=60).n_epochs == 20
    assert TrainConfig(max_time_s=86400).n_epochs == 288


def test_what_may_change_on_resume():
    config = TrainConfig(epochs=2)
    assert config.differences(TrainConfig(epochs=2, readers=7, loggers=())) == []
    assert config.differences(TrainConfig(epochs=3, seed=5)) == ["epochs: 2 -> 3", "seed: 1 -> 5"]


def test_json_round_trip(tmp_path):
    config = TrainConfig(max_time_s=90, optimizer="sgd")
    config.save(tmp_path / "config.json")
    assert TrainConfig.load(tmp_path / "config.json") == config


def test_patience_without_validations_is_refused():
    with pytest.raises(OptionError, match="patience needs validations"):
        TrainConfig.make(patience=3, val_cases=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schedule": "multistep"}, "steps and the schedule multistep belong together"),
        ({"steps": (3,)}, "steps and the schedule multistep belong together"),
        ({"min_epochs": 3}, "give patience too"),
        ({"schedule": "poly", "restarts": 1}, "restarts are for the schedule cosine"),
        ({"schedule": "plateau", "val_cases": 0}, "waits for validations"),
        ({"schedule": "multistep", "steps": (3,), "max_time_s": 9}, "as shares of the training"),
        ({"schedule": "multistep", "steps": (3, 9), "epochs": 9}, "never reached in 9 epochs"),
    ],
)
def test_options_that_do_nothing_are_refused(options, said):
    with pytest.raises(OptionError, match=said):
        TrainConfig.make(**options)


def test_a_record_with_idle_options_still_loads_and_compares(tmp_path):
    """What is refused to a user may stand in a run.json, which holds every field."""
    (tmp_path / "config.json").write_text(TrainConfig(optimizer="adam", momentum=0.5).model_dump_json())
    loaded = TrainConfig.load(tmp_path / "config.json")
    assert loaded.momentum == 0.5
    assert TrainConfig(optimizer="adam").differences(loaded) == ["momentum: 0.9 -> 0.5"]
    with pytest.raises(OptionError, match="momentum is for the optimizer sgd"):
        TrainConfig.make(optimizer="adam", momentum=0.5)


def test_where_mlflow_keeps_its_runs_is_never_written():
    config = TrainConfig(loggers=("mlflow",), mlflow_uri="postgresql://me:secret@host/runs")
    assert "secret" not in config.model_dump_json() + repr(config)
    assert config.revised(seed=2).mlflow_uri == config.mlflow_uri
    assert config.differences(TrainConfig()) == []


def test_a_presets_defaults_may_be_idle_but_not_what_is_given():
    config = TrainConfig.make(
        defaults={"optimizer": "adam", "momentum": 0.8, "patience": 5, "seed": 3}, patience=None, epochs=4
    )
    assert (config.momentum, config.patience, config.seed, config.epochs) == (0.8, None, 3, 4)
