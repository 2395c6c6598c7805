"""``preprocess``, ``train``, ``validate``, one by one: by the recipe and from a file of options, to a scored model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decathlete.cli.main import main
from decathlete.models.bundle import ModelBundle
from decathlete.synthetic.phantoms import make_phantoms


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["decathlete", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None)


def trained(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The plan and the options of a model that was scored."""
    assert json.loads((folder / "scores.json").read_text())["headline"]["values"]["dice"] is not None
    record = ModelBundle.load(folder).record
    return record.plan, record.training_provenance["config"]


@pytest.mark.parametrize("dim", [pytest.param(3, marks=pytest.mark.full), 2])
def test_train_by_the_recipe(
    dim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_phantoms(Path("data/Task04_Hippocampus"), n_cases=4, shape_ZYX=(36, 50, 35))
    recipe = ["--preset", "recipe", "--task", "04", "--dim", dim]
    call(monkeypatch, "preprocess", *recipe, "--filters", "4,8,8,8", "--n-folds", 2)
    nvol = ["--nvol", 4] if dim == 2 else []
    call(monkeypatch, "train", *recipe, *nvol, "--epochs", 2, "--steps-per-epoch", 2, "--device", "cpu")
    folder = Path(f"results/Task04_Hippocampus/{dim}d/fold_0")
    capsys.readouterr()
    call(monkeypatch, "validate", "--model", folder, "--device", "cpu")
    head, *classes, headline = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["class", "Dice"]
    assert [line.split()[0] for line in classes] == ["blob"] * len(classes) != []
    assert headline.startswith("mean Dice")
    plan, config = trained(folder)
    assert (plan.patch_size, plan.batch_size) == (((40, 56, 40), 2) if dim == 3 else ((56, 40), 16))
    optimizer = config["optimizer"]
    assert (optimizer["name"], optimizer["learning_rate"], config["schedule"]["name"]) == ("adam", 8e-4, "none")
    assert config["sampler"]["nvol"] == (4 if dim == 2 else None)


OPTIONS = """
epochs: 2
steps_per_epoch: 3
n-folds: 2
devices: 2          # processes
device: cpu
filters: 4,8,8
optimizer: sgd
layout: channels_last
"""


@pytest.mark.full
def test_run_from_a_file_of_options_on_two_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_phantoms(Path("data/Task07_Balls"), n_cases=4, shape_ZYX=(16, 16, 16))
    Path("options.yaml").write_text(OPTIONS)
    call(monkeypatch, "run", "7", "--config", "options.yaml", "--learning-rate", 0.02)
    plan, config = trained(Path("results/Task07_Balls/3d/fold_0"))
    assert plan.network.features == (4, 8, 8)
    assert [config[name] for name in ("epochs", "devices", "layout")] == [2, 2, "channels_last"]
    assert (config["optimizer"]["name"], config["optimizer"]["learning_rate"]) == ("sgd", 0.02)
    assert json.loads(Path("results/Task07_Balls/3d/fold_0/logs.json").read_text())["epochs"][-1]["step"] == 6
