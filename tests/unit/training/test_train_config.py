"""Options of training."""

from __future__ import annotations

import pytest

from decathlete.errors import OptionError
from decathlete.training.config import TrainConfig
from decathlete.training.short_forms import is_version_1, upgrade_version_1


def test_problems_are_reported_together():
    with pytest.raises(OptionError) as caught:
        TrainConfig.make(epochs=0, schedule="sawtooth", learning_rate=-1)
    for name in ("epochs", "no schedule called 'sawtooth'", "learning_rate: Input should be greater than 0"):
        assert name in str(caught.value)


def test_one_budget_only():
    with pytest.raises(OptionError, match="not both"):
        TrainConfig.make(epochs=3, max_time_s=10)


def test_defaults_follow_the_optimizer():
    sgd, adamw = TrainConfig(), TrainConfig(optimizer="adamw")
    assert sgd.optimizer.to_config() == {
        "name": "sgd",
        "learning_rate": 0.1,
        "gradient_clip": 12.0,
        "weight_decay": 3e-5,
        "momentum": 0.9,
    }
    assert (adamw.optimizer.learning_rate, adamw.optimizer.gradient_clip) == (5e-3, 1.0)
    assert TrainConfig(learning_rate=0.3, gradient_clip=0).optimizer.learning_rate == 0.3
    assert TrainConfig(gradient_clip=0).optimizer.gradient_clip == 0


def test_a_component_is_given_by_name_by_its_settings_or_by_short_forms():
    nested = TrainConfig(optimizer={"name": "sgd", "momentum": 0.8}, loss={"name": "focal", "gamma": 1.5})
    assert TrainConfig(momentum=0.8, loss={"name": "focal", "gamma": 1.5}) == nested
    assert TrainConfig.make(**{"optimizer.momentum": 0.8, "loss": "focal", "loss.gamma": 1.5}) == nested
    assert TrainConfig(val_cases=3, val_overlap=0.25).validation.window.batch_size == 4
    with pytest.raises(OptionError, match=r"optimizer\.momentum is set twice"):
        TrainConfig.make(**{"momentum": 0.8, "optimizer.momentum": 0.9})


def test_the_flat_form_of_older_runs_is_read():
    """What version 0.1 wrote holds every option, also those that have no effect."""
    flat = {
        "epochs": 2,
        "optimizer": "adam",
        "learning_rate": None,
        "momentum": 0.9,
        "gradient_clip": 0,
        "loss": "focal",
        "schedule": "plateau",
        "restarts": 0,
        "factor": 0.5,
        "lr_patience": 3,
        "steps": [],
        "val_cases": 7,
        "val_batch_size": 2,
        "readers": 5,
        "loggers": ["tensorboard"],
        "nvol": None,
        "wandb_mode": "offline",
    }
    assert is_version_1(flat)
    expected = TrainConfig(
        epochs=2,
        optimizer="adam",
        gradient_clip=0,
        loss="focal",
        schedule="plateau",
        factor=0.5,
        lr_patience=3,
        val_cases=7,
        val_batch_size=2,
        readers=5,
        loggers=("tensorboard",),
    )
    assert TrainConfig.model_validate(upgrade_version_1(flat)) == expected
    assert not is_version_1(expected.model_dump(mode="json"))


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
        ({"schedule": "multistep"}, "multistep needs steps"),
        ({"steps": (3,)}, "steps is not a setting of the schedule cosine"),
        ({"min_epochs": 3}, "set patience too"),
        ({"schedule": "poly", "restarts": 1}, "restarts is not a setting of the schedule poly"),
        ({"schedule": "plateau", "val_cases": 0}, "waits for validations"),
        ({"schedule": "multistep", "steps": (3,), "max_time_s": 9}, "as shares of the training"),
        ({"schedule": "multistep", "steps": (3, 9), "epochs": 9}, "never reached in 9 epochs"),
    ],
)
def test_options_that_do_nothing_are_refused(options, said):
    with pytest.raises(OptionError, match=said):
        TrainConfig.make(**options)


def test_configs_are_compared_setting_by_setting():
    other = TrainConfig(optimizer="adam", val_overlap=0.25)
    assert TrainConfig(momentum=0.5).differences(TrainConfig()) == ["optimizer.momentum: 0.5 -> 0.9"]
    assert "optimizer: sgd -> adam" in TrainConfig().differences(other)
    assert "validation.window.overlap: 0.5 -> 0.25" in TrainConfig().differences(other)
    with pytest.raises(OptionError, match="momentum is not a setting of the optimizer adam"):
        TrainConfig.make(optimizer="adam", momentum=0.5)


def test_where_mlflow_keeps_its_runs_is_never_written():
    config = TrainConfig(loggers=("mlflow",), mlflow_uri="postgresql://me:secret@host/runs")
    assert "secret" not in config.model_dump_json() + repr(config)
    assert config.revised(seed=2).loggers[0].uri == "postgresql://me:secret@host/runs"
    assert config.differences(TrainConfig()) == []


def test_a_presets_defaults_may_be_idle_but_not_what_is_given():
    config = TrainConfig.make(
        defaults={"optimizer": "adam", "momentum": 0.8, "patience": 5, "seed": 3}, patience=None, epochs=4
    )
    assert (config.optimizer.component, config.patience, config.seed, config.epochs) == ("adam", None, 3, 4)


def test_a_revision_replaces_single_settings_and_keeps_the_others():
    config = TrainConfig(epochs=3, loader={"name": "threads", "readers": 3, "prefetch": 2}, val_cases=0, momentum=0.7)
    revised = config.revised(**{"readers": 1, "momentum": 0.8, "loss.smooth": 0.5, "val_every": 2})
    assert (revised.loader.readers, revised.loader.prefetch) == (1, 2)
    assert (revised.optimizer.momentum, revised.loss.smooth) == (0.8, 0.5)
    assert (revised.validation.cases, revised.validation.every, revised.epochs) == (0, 2, 3)
    with pytest.raises(ValueError, match="epochs or max_time"):
        config.revised(max_time_s=60)
