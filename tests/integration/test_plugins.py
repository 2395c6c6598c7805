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
LOOSE = {
    "loss": "my_components.tversky:TverskyLoss",
    "optimizer": "my_components.rmsprop:RmspropOptimizer",
    "transform": "my_components.bias_field:BiasField",
    "architecture": "my_components.dilated:DilatedChain",
    "metric": "my_components.volume_error:VolumeError",
    "image format": "my_components.numpy_archive:NumpyArchive",
    "engine": "my_components.double:DoubleEngine",
}
"""The page's components by kind, as the command line names them if they are not installed."""


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


def recorded(folder: Path, dataset: str = "Task01_Small") -> dict[str, Any]:
    """What the run has written about itself."""
    record: dict[str, Any] = json.loads((folder / f"results/{dataset}/3d/fold_0/run.json").read_text())
    return record


def test_the_page_has_short_examples() -> None:
    modules = {name: text for name, text in BLOCK.findall(PAGE.read_text("utf-8")) if name.startswith("my_comp")}
    assert len(modules) >= 5
    assert {name for name, text in modules.items() if len(text.splitlines()) > 42} == set()


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


def run_contract_tests(package: Path, kinds: str, names: list[str], *plugins: str, exit_code: int = 0) -> str:
    """Run the contract tests of some components of ``package``, and return pytest's output."""
    command = [sys.executable, "-m", "pytest", "-v", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *[word for name in plugins for word in ("-p", name)], kinds, "-k", " or ".join(names)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout


def assert_each_passes(output: str, names: list[str]) -> None:
    passed = [line for line in output.splitlines() if " PASSED" in line]
    assert [name for name in names if not any(name in line for line in passed)] == []


def test_an_installed_metric_passes_its_contract_tests(plugin: Path) -> None:
    names = ["volume_error_ml"]
    assert_each_passes(run_contract_tests(plugin, "tests/contract/test_metric.py", names), names)


@pytest.mark.full
def test_installed_components_pass_the_contract_tests(plugin: Path) -> None:
    names = sorted(name for _, name in entry_points())
    assert_each_passes(run_contract_tests(plugin, "tests/contract", names), names)


@pytest.mark.full
def test_loose_components_pass_the_contract_tests(loose: Path) -> None:
    names, modules = sorted(name for _, name in entry_points()), [name.partition(":")[0] for name in LOOSE.values()]
    assert_each_passes(run_contract_tests(loose, "tests/contract", names, *modules), names)


MASK_TRANSFORM = '''
from decathlete.augmentation.transforms import TRANSFORMS
from decathlete.augmentation.transforms._masks import MaskSettings, MaskTransform

@TRANSFORMS.register("faded_masks")
class FadedMasks(MaskTransform):
    """Masks that are no longer 0 and 1."""

    class Settings(MaskSettings):
        pass

    def change(self, mask_ZYX, random):
        return mask_ZYX * random.random()
'''


@pytest.mark.full
def test_a_wrong_transform_of_masks_fails_the_contract_tests(tmp_path: Path) -> None:
    (tmp_path / "faded_masks.py").write_text(MASK_TRANSFORM)
    output = run_contract_tests(
        tmp_path, "tests/contract/test_mask_transform.py", ["faded_masks"], "faded_masks", exit_code=1
    )
    assert "FAILED tests/contract/test_mask_transform.py::test_masks_stay_binary_and_apart" in output
    assert_each_passes(output, ["test_it_changes_masks_and_repeats_by_seed"])


@pytest.mark.full
def test_loose_components_are_named_by_module_and_class(loose: Path, tmp_path: Path) -> None:
    """Each command names what it needs. Predictions and scores are made by another process than the training."""
    make_phantoms(tmp_path / "Task01_Small", n_cases=4, shape_ZYX=(16, 24, 20))
    plugins = {kind: ("--plugin", LOOSE[kind]) for kind in ("transform", "image format", "architecture")}
    images, model, dataset = "data/Dataset001_Small/imagesTr", "results/Dataset001_Small/3d/fold_0", "Dataset001_Small"
    parts = ("--loss", LOOSE["loss"], "--optimizer", LOOSE["optimizer"], "--architecture", LOOSE["architecture"])
    transform = (*plugins["transform"], "--set", "augmentation.bias_field.probability=1")
    places = ("--to", "nnunet", "-o", f"data/{dataset}", "--suffix", ".npz")
    by_name, converted, trained, listed = decathlete(
        ("run", "Task01_Small", "--loss", "my_tversky"),
        ("convert", "Task01_Small", *places, *plugins["image format"]),
        ("run", f"data/{dataset}", *TRAIN, *parts, *transform, *plugins["image format"], "--no-adapt"),
        ("components", *[word for name in LOOSE.values() for word in ("--plugin", name)]),
        plugin=loose,
        folder=tmp_path,
    )
    assert by_name.code == 2
    assert "'my_tversky' is not known" in by_name.err
    succeeded(converted)
    succeeded(trained)
    config = recorded(tmp_path, dataset)["config"]
    assert config["loss"] == {"name": "my_tversky", "alpha": 0.3}  # never the module's path
    assert (config["optimizer"]["name"], config["augmentation"]["bias_field"]["probability"]) == ("rmsprop", 1)
    lines = [line.split() for line in succeeded(listed).splitlines() if line.endswith("(plug-in)")]
    assert {line[0] for line in lines} == {name for _, name in entry_points()}

    predict = ("predict", "--model", model, "--input", images, "--output", "predictions", "--engine", LOOSE["engine"])
    score = ("evaluate", "--preds", "predictions", "--lbls", f"data/{dataset}/labelsTr")
    unknown, predicted, scored = decathlete(
        (*predict, *plugins["image format"]),
        (*predict, *plugins["image format"], *plugins["architecture"]),
        (*score, *plugins["image format"], "--metrics", f"dice,{LOOSE['metric']}"),
        plugin=loose,
        folder=tmp_path,
    )
    assert unknown.code == 2
    assert "architecture 'dilated_chain'" in unknown.err
    assert "--plugin MODULE" in unknown.err
    succeeded(predicted)
    assert {path.suffix for path in (tmp_path / "predictions").iterdir()} >= {".npz", ".json"}
    assert "Volume error mL" in succeeded(scored)
