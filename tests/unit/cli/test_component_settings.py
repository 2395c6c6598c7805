"""``--set`` of commands that predict: settings of the engine, of image formats and of metrics, also from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from decathlete import PredictOptions
from decathlete.cli.main import app
from decathlete.errors import OptionError

ENGINE = ("--engine", "onnx", "--set", "engine.threads=2")
CHOSEN = PredictOptions(engine={"name": "onnx", "threads": 2})
COMMANDS = {
    "predict": ("decathlete.workflows.predict.predict", "--model m --input i --output o"),
    "validate": ("decathlete.workflows.validate.validate", "--model m"),
    "select": ("decathlete.workflows.selection.select.select", "results"),
    "run": ("decathlete.workflows.run.run", "x"),
    "serve": ("decathlete.serving.http.server.serve", "--model m"),
}


def heard(monkeypatch: pytest.MonkeyPatch, command: str, *arguments: str) -> dict[str, Any]:
    """What the function of a command is called with."""
    found: dict[str, Any] = {}

    def listen(*positional: Any, **given: Any) -> None:
        found.update(given, positional=positional)
        raise OptionError("enough")

    function, required = COMMANDS[command]
    monkeypatch.setattr(function, listen)
    words = required.split() if command == "any" else [command, *required.split()]
    result = CliRunner().invoke(app, [*words, *arguments])
    assert str(result.exception) == "enough", result.output + str(result.exception)
    return found


def options_of(command: str, found: dict[str, Any]) -> PredictOptions:
    if command == "serve":
        found = {"options": found["positional"][0].options}
    chosen: PredictOptions = found["predict_options" if command == "run" else "options"]
    return chosen


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_predicts_sets_the_engine(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert options_of(command, heard(monkeypatch, command, *ENGINE)) == CHOSEN


@pytest.mark.parametrize("command", COMMANDS)
def test_a_section_of_a_file_is_the_same(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("engine: {name: onnx, threads: 2}\nnetwork: {negative_slope: 0.2}\n")
    found = heard(monkeypatch, command, "--config", str(path))
    assert options_of(command, found) == CHOSEN
    if command == "run":
        assert found["plan_options"].overrides == ("network.negative_slope=0.2",)
    # Settings of one engine do not apply to another that the command line chooses.
    found = heard(monkeypatch, command, "--config", str(path), "--engine", "torch")
    assert options_of(command, found) == PredictOptions(engine="torch")


def test_a_training_ignores_the_engine_of_a_shared_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("engine: {name: onnx, threads: 2}\nimage_format: {nifti: {compression_level: 9}}\n")
    result = CliRunner().invoke(app, ["train", "--task", str(tmp_path / "nowhere"), "--config", str(path)])
    assert "nowhere" in str(result.exception)


def test_predict_sets_the_format_of_label_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {"nifti": {"compression_level": 9}}
    given = ("--set", "image_format.nifti.compression_level=9", *ENGINE)
    found = heard(monkeypatch, "predict", *given)
    assert found["kind"].image_formats == expected
    assert found["options"] == CHOSEN
    (tmp_path / "c.yaml").write_text("image_format: {nifti: {compression_level: 9}}\n")
    assert heard(monkeypatch, "predict", "--config", str(tmp_path / "c.yaml"))["kind"].image_formats == expected


@pytest.mark.parametrize(
    ("command", "function"),
    [
        ("check x", "decathlete.workflows.check.check"),
        ("preprocess --task x", "decathlete.workflows.preprocess.preprocess"),
        ("preprocess --task x --mode test --model m", "decathlete.workflows.prepare_for_model.prepare_for_model"),
        ("run x", "decathlete.workflows.run.run"),
        ("run x --images i --labels l", "decathlete.workflows.plain_dataset.describe_folders"),
        ("evaluate --preds p --lbls l", "decathlete.evaluation.evaluate.evaluate"),
    ],
)
def test_commands_that_read_images_set_their_formats(
    command: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "any", (function, command))
    found = heard(monkeypatch, "any", "--set", "image_format.nifti.compression_level=9")
    assert found["image_formats"] == {"nifti": {"compression_level": 9}}
    (tmp_path / "c.yaml").write_text("image_format: {nifti: {compression_level: 9}}\n")
    found = heard(monkeypatch, "any", "--config", str(tmp_path / "c.yaml"))
    assert found["image_formats"] == {}  # this setting of a shared file changes only files that are written


def test_validate_sets_metrics_and_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = heard(monkeypatch, "validate", *ENGINE, "--set", "nsd.tolerance_mm=2")
    assert found["options"] == CHOSEN
    (nsd,) = [metric for metric in found["metrics"] if metric.name == "nsd"]
    assert nsd.settings.tolerance_mm == 2


def test_export_triton_sets_the_engine_of_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}

    def listen(*_: Any, **given: Any) -> None:
        found.update(given)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.workflows.export_triton.export_triton", listen)
    (tmp_path / "c.yaml").write_text(
        "engine: {name: onnx, threads: 2}\nimage_format: {nifti: {compression_level: 9}}\n"
    )
    for given in (ENGINE, ("--config", str(tmp_path / "c.yaml"))):
        result = CliRunner().invoke(app, ["export", "triton", "m", "--output", "r", *given])
        assert str(result.exception) == "enough", result.output
        assert (found["settings"].engine, found["settings"].engine_settings) == ("onnx", {"threads": 2})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--set engine.threads=2", "the engine auto has no settings (threads)"),
        ("--engine torch --set engine.threads=2", "threads is not a setting of the engine torch"),
        ("--engine onnx --set engine.threads", "--set engine.threads is not the value of a setting"),
        ("--engine onnx --set engine=2", "--set engine=2 is not the value of a setting"),
        ("--engine onnx --set engine.name=torch", "use --engine NAME"),
        ("--set loss.alpha=0.3", "--set loss.alpha=0.3: this command has no such setting"),
        ("--set image_format.nifti.level=3", "level is not a setting of the image format nifti"),
        ("--set image_format.nifti=3", "settings of the image format nifti are not 3"),
    ],
)
def test_settings_that_predict_does_not_have_are_errors(given: str, message: str) -> None:
    arguments = ["predict", "--model", "m", "--input", "i", "--output", "o", *given.split()]
    problem = CliRunner().invoke(app, arguments).exception
    assert isinstance(problem, OptionError)
    assert message in str(problem)
