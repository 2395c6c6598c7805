"""``--config``: what a file of options comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from decathlete import PlanOptions, PredictOptions, TrainConfig
from decathlete.augmentation.config import AugmentationConfig
from decathlete.cli.main import app
from decathlete.errors import OptionError


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `run` and `train` would have been called with."""
    heard: dict[str, Any] = {}

    def listen(task: str, **arguments: Any) -> None:
        heard.update(arguments, task=task)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.workflows.run.run", listen)
    monkeypatch.setattr("decathlete.workflows.train.train", listen)
    return heard


def called(*arguments: str) -> str:
    """The error that a command ends with."""
    return str(CliRunner().invoke(app, list(arguments)).exception)


YAML = """
# anything that `run` takes
dim: 2
norm: batch
set: [batch_size=3, mirror_axes=none]
batch-size: 4
max_time: 2m
learning_rate: 1e-3   # a word, for YAML
schedule: multistep
steps: [0.5, 0.8]
focal: true
augment: false
overlap: 0.25
folds:
"""


def test_each_kind_of_option_arrives(heard: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_text(YAML)
    assert called("run", "here", "--config", str(tmp_path / "o.yaml")) == "enough"
    assert (heard["task"], heard["dims"]) == ("here", 2)
    assert heard["plan_options"] == PlanOptions(norm="batch", overrides=("batch_size=3", "mirror_axes=none"))
    assert heard["predict_options"] == PredictOptions(overlap=0.25)
    assert heard["config"] == TrainConfig(
        batch_size=4,
        max_time_s=120,
        learning_rate=1e-3,
        schedule="multistep",
        steps=(0.5, 0.8),
        loss="focal",
        augmentation=AugmentationConfig.none(),
    )


def test_flags_win(heard: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "o.json").write_text('{"task": "04", "epochs": 30, "seed": 5, "augment": false, "ema_decay": 0.0}')
    flags = ["--seed", "7", "--augment", "--max-time", "1m"]
    assert called("train", *flags, "--config", str(tmp_path / "o.json")) == "enough"
    assert heard["task"] == "04"
    assert heard["config"] == TrainConfig(seed=7, max_time_s=60, ema_decay=0)


def test_two_alternatives_in_the_file_still_contradict_each_other(heard: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "o.json").write_text('{"epochs": 30, "max_time": "1m"}')
    assert "not both" in called("train", "--task", "04", "--config", str(tmp_path / "o.json"))


def test_null_switches_a_presets_value_off(heard: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_text("patience: null\nseed:\nmomentum: null\ndepth: null\nlearning_rate: 0.1")
    for order in (["--preset", "recipe", "--config"], ["--config"]):
        tail = [str(tmp_path / "o.yaml"), *(["--preset", "recipe"] if len(order) == 1 else [])]
        assert called("run", "here", *order, *tail) == "enough"
        config, plain = heard["config"], TrainConfig()
        assert (config.patience, config.min_epochs, config.seed) == (None, None, plain.seed)
        assert (config.optimizer.learning_rate, config.optimizer.component) == (0.1, "adam")
        assert (heard["plan_options"].depth, heard["plan_options"].preprocessing_order) == (None, "recipe")


def test_switches_of_the_file_are_undone_by_flags_and_may_be_spelled_as_those(
    heard: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "o.yaml").write_text(
        "no_adapt: true\ntta: true\ndeterministic: true\noverwrite: true\nno-augment: false"
    )
    assert called("run", "here", "--config", str(tmp_path / "o.yaml")) == "enough"
    assert (heard["adapt"], heard["overwrite"], heard["predict_options"].window.tta) == (False, True, True)
    assert heard["config"] == TrainConfig(deterministic=True)
    undone = ["--adapt", "--no-tta", "--no-deterministic", "--no-overwrite"]
    assert called("run", "here", "--config", str(tmp_path / "o.yaml"), *undone) == "enough"
    assert (heard["adapt"], heard["overwrite"], heard["predict_options"].window.tta) == (True, False, False)
    assert heard["config"] == TrainConfig()
    (tmp_path / "o.yaml").write_text("no_adapt: true\nadapt: true")
    assert "adapt: is set twice" in called("run", "here", "--config", str(tmp_path / "o.yaml"))


def test_a_renamed_option_names_its_successor(heard: dict[str, Any], tmp_path: Path) -> None:
    assert called("run", "here", "--no-fit") == "the option --no-fit was renamed\n  → use --no-adapt"
    assert called("train", "--task", "04", "--fit") == "the option --fit was renamed\n  → use --adapt"
    (tmp_path / "o.yaml").write_text("no_fit: true\nseed: 3")
    assert "no_fit: the option was renamed, use no-adapt" in called("run", "here", "--config", str(tmp_path / "o.yaml"))
    renamed = "the option --order was renamed\n  → use --preprocessing-order"
    assert called("preprocess", "--task", "04", "--order", "recipe") == renamed
    (tmp_path / "o.yaml").write_text("order: recipe")
    message = called("run", "here", "--config", str(tmp_path / "o.yaml"))
    assert "order: the option was renamed, use preprocessing-order" in message
    assert not heard
    assert called("predict", "--fit", "1") != "the option --fit was renamed\n  → use --adapt"


def test_a_flag_overrules_what_would_contradict_it_in_the_file(
    heard: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "o.yaml").write_text("epochs: 30\nsteps_per_epoch: 9\nval_every: 2")
    assert called("train", "--task", "04", "--config", str(tmp_path / "o.yaml"), "--max-time", "1m") == "enough"
    assert heard["config"] == TrainConfig(max_time_s=60)
    (tmp_path / "o.yaml").write_text("max_time: 2m\noptimizer: adam\nmomentum: 0.9")
    said = called("train", "--task", "04", "--config", str(tmp_path / "o.yaml"), "--steps-per-epoch", "9")
    assert "steps_per_epoch is for a training by epochs" in said
    assert "momentum is not a setting of the optimizer adam" in said

    def listen(task: str, data: Path, **arguments: Any) -> None:
        heard.update(arguments)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.dataset.download.download", listen)
    (tmp_path / "o.yaml").write_text("region: eu\ntask: 04")
    assert called("download", "--config", str(tmp_path / "o.yaml"), "--url", "file:///x") == "enough"
    assert (heard["region"], heard["url"]) == (None, "file:///x")


def test_all_problems_are_named_together_with_the_nearest_spelling(heard: dict[str, Any], tmp_path: Path) -> None:
    wrong = """
learnig_rate: 0.1
zzz: 1
epochs: 2.5
seed: true
focal: 1
norm: batch
optimizer: lion
val_cases: 2
val-cases: 3
momentum: [0.9]
patience: 0
"""
    (tmp_path / "o.yml").write_text(wrong)
    said = called("train", "--task", "04", "--config", str(tmp_path / "o.yml"))
    assert not heard
    for part in (
        "9 problems",
        "learnig_rate: there is no such option; did you mean learning-rate?",
        "zzz: there is no such option",
        "epochs: 2.5: ",
        "seed: True is neither a number nor a word",
        "focal: 1 is neither true nor false",
        "optimizer: 'lion': ",
        "val-cases: is set twice",
        "momentum: [0.9] is neither a number nor a word",
        "patience: 0: ",
    ):
        assert part in said
    assert "norm" not in said.replace("--norm", "")


def test_a_file_may_serve_several_commands(
    heard: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "o.yaml").write_text("norm: batch\nepochs: 3\n")
    assert called("train", "--task", "04", "--config", str(tmp_path / "o.yaml")) == "enough"
    assert heard["config"] == TrainConfig(epochs=3)
    assert "ignored here: norm" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("o.toml", "a = 1", "neither YAML nor JSON"),
        ("o.json", "{", "is not valid JSON"),
        ("o.yaml", "a: [", "is not valid YAML"),
        ("o.yaml", "- epochs", "contains no options"),
        ("none.yaml", None, "does not exist"),
    ],
)
def test_files_that_hold_no_options(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert said in called("train", "--config", str(tmp_path / name))


NESTED = """
epochs: 3
loss: {name: focal, gamma: 1.5}
optimizer:
  momentum: 0.8
augmentation:
  gamma: {probability: 0.05, between: [0.8, 1.2]}
validation: {cases: 4, window: {overlap: 0.25}}
loggers: [{name: wandb, mode: online}]
network: {negative_slope: 0.2}
"""


def trained(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> dict[str, Any]:
    """What the command ``train`` would train with."""
    heard: dict[str, Any] = {}

    def listen(task: str, **given: Any) -> None:
        heard.update(given)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.workflows.train.train", listen)
    result = CliRunner().invoke(app, ["train", "--task", "x", *map(str, arguments)])
    assert str(result.exception) == "enough", result.exception
    return heard


def test_nested_sections_set_components_and_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(NESTED)
    heard = trained(monkeypatch, "--config", path)
    config = heard["config"]
    assert (config.epochs, config.loss.to_config()["gamma"], config.optimizer.momentum) == (3, 1.5, 0.8)
    assert config.augmentation["gamma"].probability == 0.05
    assert (config.validation.cases, config.validation.window.overlap) == (4, 0.25)
    assert config.loggers[0].to_config() == {"name": "wandb", "mode": "online"}
    assert heard["overrides"] == ("network.negative_slope=0.2",)


def test_flags_win_over_sections_and_set_adds_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(NESTED)
    arguments = ("--loss", "cross_entropy", "--set", "optimizer.momentum=0.7", "--set", "train.batch_size=3")
    heard = trained(monkeypatch, "--config", path, *arguments)
    assert heard["config"].loss.component == "cross_entropy"
    assert heard["config"].optimizer.momentum == 0.7
    assert heard["config"].batch_size == 3


def test_set_reaches_settings_of_groups_and_components(monkeypatch: pytest.MonkeyPatch) -> None:
    assigned = ("validation.every=3", "validation.window.overlap=0.25", "sampler.oversampling=0.5")
    flags = [part for text in assigned for part in ("--set", text)]
    config = trained(monkeypatch, "--epochs", "9", *flags)["config"]
    assert (config.validation.every, config.validation.window.overlap) == (3, 0.25)
    assert config.sampler.to_config()["oversampling"] == 0.5


def test_short_forms_on_the_command_line_win_over_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(NESTED)
    arguments = ("--momentum", "0.5", "--val-cases", "2")
    config = trained(monkeypatch, "--config", path, *arguments)["config"]
    assert (config.optimizer.momentum, config.validation.cases) == (0.5, 2)
    assert config.validation.window.overlap == 0.25


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("optimizer.learning_rate=0.01", ("optimizer", "learning_rate", 0.01)),
        ("sampler.oversampling=0.5", ("sampler", "oversampling", 0.5)),
        ("augmentation.gamma.probability=0.45", ("augmentation", "gamma", 0.45)),
    ],
)
def test_set_changes_single_settings_of_a_preset(
    monkeypatch: pytest.MonkeyPatch, changed: str, expected: tuple[str, str, float]
) -> None:
    config = trained(monkeypatch, "--preset", "recipe", "--set", changed)["config"].model_dump(mode="json")
    group, name, value = expected
    found = config[group][name]
    assert (found["probability"] if group == "augmentation" else found) == value
    assert config["optimizer"]["name"] == "adam"


def test_loggers_may_be_set_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    config = trained(monkeypatch, "--set", "loggers=wandb, tensorboard")["config"]
    assert [logger.component for logger in config.loggers] == ["wandb", "tensorboard"]


@pytest.mark.parametrize("assignment", ["loss=5", "optimizer=[1]", "validation=3", "loggers.wandb=3", "loggers=5"])
def test_values_of_the_wrong_kind_are_errors_of_the_option(assignment: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "--task", str(tmp_path), "--set", assignment, "--val-overlap", "0.3"])
    assert isinstance(result.exception, OptionError), result.exception


def test_focal_and_another_loss_contradict_each_other(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "--task", str(tmp_path), "--focal", "--loss", "cross_entropy"])
    assert isinstance(result.exception, OptionError)
    assert "both choose the loss" in str(result.exception)


def test_sections_of_a_training_are_left_to_commands_that_train(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("loss: {name: focal}\n")
    result = CliRunner().invoke(app, ["preprocess", "--task", str(tmp_path / "nowhere"), "--config", str(path)])
    assert "nowhere" in str(result.exception)
    assert "loss" not in str(result.exception)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("loss.alpha=0.3", "alpha is not a setting of the loss cross_entropy"),
        ("optimzer.momentum=0.3", "did you mean optimizer"),
        ("augmentation.gama.probability=0.3", "gama"),
        ("optimizer.momentum=3", "less than 1"),
    ],
)
def test_an_assignment_that_fits_nothing_is_told_so(assignment: str, said: str) -> None:
    result = CliRunner().invoke(app, ["train", "--task", "x", "--set", assignment])
    assert isinstance(result.exception, OptionError)
    assert said in str(result.exception)


def test_evaluate_takes_only_sections_of_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, Any] = {}

    def listen(*folders: Path, **given: Any) -> None:
        heard.update(given)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.evaluation.evaluate.evaluate", listen)
    path = tmp_path / "c.yaml"
    path.write_text("network: {negative_slope: 0.2}\noptimizer: {momentum: 0.3}\nnsd: {tolerance_mm: 2}\n")
    arguments = ["evaluate", "--preds", str(tmp_path), "--lbls", str(tmp_path), "--config", str(path)]
    result = CliRunner().invoke(app, [*arguments, "--metrics", "dice,nsd"])
    assert str(result.exception) == "enough", result.exception
    (nsd,) = [metric for metric in heard["metrics"] if metric.name == "nsd"]
    assert nsd.settings.tolerance_mm == 2


def test_one_file_with_assignments_of_a_training_serves_predict_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[str, Any] = {}

    def listen(*positional: Any, **given: Any) -> None:
        heard.update(given)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.workflows.predict.predict", listen)
    path = tmp_path / "c.yaml"
    path.write_text("set: [patch_size=40,56,40, image_format.nifti.compression_level=9]\n")
    arguments = ["predict", "--model", str(tmp_path), "--input", str(tmp_path), "--output", str(tmp_path / "o")]
    result = CliRunner().invoke(app, [*arguments, "--config", str(path)])
    assert str(result.exception) == "enough", result.exception


def test_settings_of_the_engine_are_left_to_commands_that_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listen(*_: Any, **__: Any) -> None:
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.serving.triton.verify.triton_verify", listen)
    path = tmp_path / "c.yaml"
    path.write_text("engine: {threads: 2}\n")
    result = CliRunner().invoke(app, ["triton", "verify", str(tmp_path), "--config", str(path)])
    assert str(result.exception) == "enough", result.exception
    path.write_text("set: [engine.threads=2]\n")
    result = CliRunner().invoke(app, ["triton", "verify", str(tmp_path), "--config", str(path)])
    assert str(result.exception) == "enough", result.exception


@pytest.mark.parametrize("is_named", [False, True])
def test_reading_settings_of_a_shared_file_need_files_that_are_named(
    is_named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[str, Any] = {}

    def listen(*_: Any, **given: Any) -> None:
        heard.update(given)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.workflows.export_model.export_model", listen)
    path = tmp_path / "c.yaml"
    path.write_text("spacing: [2, 1, 1]\n")
    arguments = ["export", "onnx", str(tmp_path), "--output", str(tmp_path / "o"), "--config", str(path)]
    result = CliRunner().invoke(app, [*arguments, *(["--input", str(tmp_path)] if is_named else [])])
    assert str(result.exception) == "enough", result.exception
    assert heard["spacing"] == ((2.0, 1.0, 1.0) if is_named else None)
