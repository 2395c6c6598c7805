"""Components of a package outside the repository are found, trained with, and described, with no line changed here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cli_support import CommandResult
from decathlete.synthetic.phantoms import make_phantoms
from plugin_support import BLOCK, PAGE, ROOT, decathlete, write_plugin

TRAIN = ("--epochs", 1, "--steps-per-epoch", 3, "--device", "cpu", "--precision", "fp32", "--logger", "none")


class Installed(NamedTuple):
    """What the commands print: ``components``, ``components --json`` and ``run`` with the package's components."""

    names: CommandResult
    descriptions: CommandResult
    trained: CommandResult


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as an installed distribution."""
    return write_plugin(tmp_path_factory.mktemp("installed"), entry_points=True)


@pytest.fixture(scope="module")
def installed(plugin: Path, workspace: Path) -> Installed:
    """What three commands do with the installed package."""
    transform = ("--set", "augmentation.bias_field.probability=1")
    chosen = ("--loss", "my_tversky", "--set", "loss.alpha=0.6", "--optimizer", "rmsprop", *transform)
    training = ("run", "data/Task01_Small", *TRAIN, *chosen, "--no-adapt")
    names, trained, descriptions = decathlete(
        ("components",), training, ("components", "--json"), plugin=plugin, folder=workspace
    )  # in this order: the last command imports all components, and training must find them itself
    return Installed(names=names, descriptions=descriptions, trained=trained)


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as a folder on ``PYTHONPATH``."""
    return write_plugin(tmp_path_factory.mktemp("loose"), entry_points=False)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset to train on."""
    folder = tmp_path_factory.mktemp("workspace")
    make_phantoms(folder / "data" / "Task01_Small", n_cases=4, shape_ZYX=(16, 24, 20))
    return folder


def succeeded(said: CommandResult) -> str:
    assert said.code in (0, None), said.out + said.err
    return said.out


def recorded(folder: Path, dims: int = 3) -> dict[str, Any]:
    """What the run has written about itself."""
    found: dict[str, Any] = json.loads((folder / f"results/Task01_Small/{dims}d/fold_0/run.json").read_text())
    return found


def test_the_page_has_short_examples() -> None:
    modules = {name: text for name, text in BLOCK.findall(PAGE.read_text("utf-8")) if name.startswith("my_comp")}
    assert len(modules) >= 5
    assert all(len(text.splitlines()) <= 60 for text in modules.values())


def test_installed_components_are_listed_with_their_distribution(installed: Installed) -> None:
    listed = json.loads(succeeded(installed.descriptions))
    mine = {(c["kind"], c["name"]) for c in listed if c["distribution"] == "my-components"}
    assert mine == entry_points()
    (tversky,) = [c for c in listed if c["name"] == "my_tversky"]
    assert tversky["version"] == "1.2"
    (alpha,) = tversky["settings"]
    assert (alpha["default"], alpha["allowed"]) == (0.3, "≥ 0, ≤ 1")
    assert "false negatives" in alpha["description"]
    settings = {c["name"]: [setting["name"] for setting in c["settings"]] for c in listed}
    assert (settings["double"], settings["numpy_archive"]) == (["max_windows"], ["array", "is_compressed"])


def test_installed_components_are_listed_by_name(installed: Installed) -> None:
    listed = succeeded(installed.names).splitlines()
    (line,) = [line for line in listed if line.startswith("  my_tversky ")]
    assert line.endswith("(my-components)")


def entry_points() -> set[tuple[str, str]]:
    """Kind and name of the page's components."""
    text = dict(BLOCK.findall(PAGE.read_text("utf-8")))["pyproject.toml"]
    return {(kind.replace("_", " "), name) for kind, name in re.findall(r'^"([\w ]+)\.(\w+)" = ', text, re.MULTILINE)}


def test_installed_components_train(installed: Installed, workspace: Path) -> None:
    succeeded(installed.trained)
    config = recorded(workspace)["config"]
    assert config["loss"] == {"name": "my_tversky", "alpha": 0.6}
    assert config["optimizer"]["name"] == "rmsprop"
    assert config["augmentation"]["bias_field"]["probability"] == 1
    model = json.loads((workspace / "results/Task01_Small/3d/fold_0/model/model.json").read_text())
    origins = {(c["kind"], c["name"]): c["distribution"] for c in model["members"][0]["components"]}
    assert {kind_and_name for kind_and_name, distribution in origins.items() if distribution == "my-components"} == {
        ("loss", "my_tversky"),
        ("optimizer", "rmsprop"),
        ("transform", "bias_field"),
    }
    assert {origins[kind] for kind in (("architecture", "unet"), ("loader", "threads"))} == {"decathlete"}


def test_an_installed_network_metric_format_and_engine_work_together(plugin: Path, tmp_path: Path) -> None:
    make_phantoms(tmp_path / "Task01_Small", n_cases=4, shape_ZYX=(16, 24, 20))
    array = ("--set", "image_format.numpy_archive.array=mr")
    images, model = "data/Dataset001_Small/imagesTr", "results/Dataset001_Small/3d/fold_0"
    chosen = ("--architecture", "dilated_chain", *TRAIN, "--no-adapt")
    engine = ("--engine", "double", "--set", "engine.max_windows=2")
    form = (*array, "--set", "image_format.numpy_archive.is_compressed=false")
    predict = ("predict", "--model", model, "--input", images, "--output", "predictions")
    score = ("evaluate", "--preds", "predictions", "--lbls", "data/Dataset001_Small/labelsTr")
    converted, checked, trained = decathlete(
        ("convert", "Task01_Small", "--to", "nnunet", "-o", "data/Dataset001_Small", "--suffix", ".npz", *array),
        ("check", "data/Dataset001_Small"),
        ("run", "data/Dataset001_Small", *chosen, *array),
        plugin=plugin,
        folder=tmp_path,
    )
    succeeded(converted)
    assert {file.suffix for file in (tmp_path / images).iterdir()} == {".npz"}
    assert "image is not a file in the archive" in checked.out, "without the setting"
    succeeded(trained)
    # another process, which must find the network of a model itself
    scoring = (*score, *array, "--metrics", "dice,volume_error_ml")
    predicted, scored = decathlete((*predict, *engine, *form), scoring, plugin=plugin, folder=tmp_path)
    succeeded(predicted)
    for path in (tmp_path / "predictions").glob("*.json"):
        used = json.loads(path.read_text())["settings"]
        assert [model["engine_settings"] for model in used["models"]] == [{"max_windows": 2}]
        assert used["image_formats"] == {"numpy_archive": {"array": "mr", "is_compressed": False}}
        with zipfile.ZipFile(path.with_suffix(".npz")) as archive:
            assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
    assert "Volume error mL" in succeeded(scored)


@pytest.mark.full
def test_installed_components_pass_the_contract_tests(plugin: Path) -> None:
    names = sorted(name for _, name in entry_points())
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-v",
            "-n",
            "0",
            "-p",
            "no:cacheprovider",
            "tests/contract",
            "-k",
            " or ".join(names),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(plugin), os.environ.get("PYTHONPATH", "")])},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = [line for line in done.stdout.splitlines() if " PASSED" in line]
    assert [name for name in names if not any(name in line for line in passed)] == []


def test_a_loose_module_is_named_on_the_command_line(loose: Path, tmp_path: Path) -> None:
    make_phantoms(tmp_path / "data" / "Task01_Small", n_cases=4, shape_ZYX=(16, 24, 20))
    chosen = ("--loss", "my_components.tversky:TverskyLoss", "--plugin", "my_components.rmsprop", "--optimizer")
    by_name, trained = decathlete(
        ("run", "data/Task01_Small", "--loss", "my_tversky"),
        ("run", "data/Task01_Small", *TRAIN, *chosen, "rmsprop", "--no-adapt"),
        plugin=loose,
        folder=tmp_path,
    )
    assert by_name.code == 2
    assert "'my_tversky' is not known" in by_name.err
    succeeded(trained)
    assert recorded(tmp_path)["config"]["loss"] == {"name": "my_tversky", "alpha": 0.3}  # never the module's path
