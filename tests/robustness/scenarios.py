"""The commands that are killed and disturbed: their inputs, arguments and results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from robustness.datasets import (
    ENGINE,
    OTHER_TASK,
    TASK,
    make_configurations,
    make_dataset,
    make_workspace,
    workspace_options,
)
from robustness.formats.models import make_dynunet_checkpoint, make_nnunet_zip

Files = dict[str, bytes]

_RUN = "results/Task01_Ball/3d/fold_0"
_EPOCHS = ("--epochs", "3", "--steps-per-epoch", "4", "--batch-size", "2", "--device", "cpu")
_CONFIGURATIONS = ("--configurations", "2d,3d", "--folds", "0-1")
_TIMED = ("--max-time", "8s", "--batch-size", "2", "--device", "cpu")
_CPU = ("--device", "cpu")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A command with its inputs.

    Attributes:
        needs: which inputs: ``raw``, ``two datasets``, ``prepared``, ``trained``, ``configurations`` or ``models``.
        arguments: from the folder of the trial to the command line.
        roots: folders of results, below the folder of the trial.
        resuming: more arguments when the command is repeated.
        epochs: the argument that is the number of epochs, if the command trains.
        equal: whether the results of a repeated command equal those of an undisturbed one; else they are whole.
    """

    name: str
    needs: str
    arguments: Callable[[Path], list[str]]
    roots: tuple[str, ...] = ("out",)
    resuming: tuple[str, ...] = ()
    equal: bool = True
    epochs: str = "3"


def _run_options(folder: Path) -> list[str]:
    options = ["--prepared", str(folder / "prepared"), "--results", str(folder / "results"), "--workers", "2"]
    return [str(folder / TASK), *options, "--filters", "4,8", *_CPU]


def _out(folder: Path, name: str = "out") -> list[str]:
    return ["-o", str(folder / name)]


def _train(options: tuple[str, ...]) -> Callable[[Path], list[str]]:
    return lambda folder: ["train", *workspace_options(folder, command="train"), *options]


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(name="check", needs="raw", arguments=lambda f: ["check", str(f / TASK)]),
    Scenario(
        name="preprocess",
        needs="raw",
        arguments=lambda f: ["preprocess", *workspace_options(f, command="preprocess")],
        roots=("prepared",),
    ),
    Scenario(
        name="train --epochs",
        needs="prepared",
        arguments=_train(_EPOCHS),
        roots=("results",),
        resuming=("--resume",),
    ),
    Scenario(
        name="train --max-time",
        needs="prepared",
        arguments=_train(_TIMED),
        roots=("results",),
        resuming=("--resume",),
        equal=False,
    ),
    Scenario(
        name="train --devices 2",
        needs="prepared",
        arguments=_train((*_EPOCHS, "--devices", "2")),
        roots=("results",),
        resuming=("--resume",),
    ),
    Scenario(
        name="predict",
        needs="trained",
        arguments=lambda f: ["predict", "--model", str(f / _RUN), "-i", str(f / TASK / "imagesTr"), *_out(f), *_CPU],
    ),
    Scenario(
        name="validate",
        needs="trained",
        arguments=lambda f: ["validate", "--model", str(f / _RUN), "--overwrite", *_CPU],
        roots=("results",),
    ),
    Scenario(
        name="evaluate",
        needs="raw",
        arguments=lambda f: ["evaluate", *_label_folders(f), *_out(f)],
    ),
    Scenario(
        name="report", needs="trained", arguments=lambda f: ["report", "--model", str(f / _RUN)], roots=("results",)
    ),
    Scenario(
        name="convert",
        needs="raw",
        arguments=lambda f: ["convert", str(f / TASK), "--to", "nnunet", *_out(f, "out/Dataset001_Ball"), "--copy"],
    ),
    Scenario(
        name="convert --merge",
        needs="two datasets",
        arguments=lambda f: [
            *("convert", str(f / TASK), str(f / OTHER_TASK), "--merge", "--copy", "--suffix", ".nii.gz"),
            *("--to", "nnunet", *_out(f, "out/Dataset001_Ball")),
        ],
    ),
    Scenario(
        name="import nnunet",
        needs="models",
        arguments=lambda f: ["import", "nnunet", str(f / "model.zip"), *_out(f, "out/model")],
    ),
    Scenario(
        name="import dynunet",
        needs="models",
        arguments=lambda f: ["import", "dynunet", str(f / "model.ckpt"), *_out(f, "out/model")],
    ),
    Scenario(
        name="export nnunet",
        needs="trained",
        arguments=lambda f: ["export", "nnunet", str(f / _RUN), *_out(f, "out/model")],
    ),
    *(
        [
            Scenario(
                name="export onnx",
                needs="trained",
                arguments=lambda f: ["export", "onnx", str(f / _RUN), *_out(f, "out/model.onnx")],
            ),
            Scenario(
                name="export triton",
                needs="trained",
                arguments=lambda f: ["export", "triton", str(f / _RUN), *_out(f)],
            ),
        ]
        if find_spec("onnx")
        else []
    ),
    Scenario(
        name="run --epochs",
        needs="raw",
        arguments=lambda f: ["run", *_run_options(f), *_EPOCHS[:6]],
        roots=("prepared", "results"),
    ),
    Scenario(
        name="run --max-time",
        needs="raw",
        arguments=lambda f: ["run", *_run_options(f), *_TIMED[:4]],
        roots=("prepared", "results"),
        equal=False,
    ),
    Scenario(
        name="run --folds 0-1",
        needs="raw",
        arguments=lambda f: ["run", *_run_options(f), *_EPOCHS[:6], "--folds", "0-1"],
        roots=("prepared", "results"),
    ),
    Scenario(
        name="run --configurations",
        needs="raw",
        arguments=lambda f: ["run", *_run_options(f), *_EPOCHS[:6], *_CONFIGURATIONS],
        roots=("prepared", "results"),
    ),
    Scenario(
        name="select",
        needs="configurations",
        arguments=lambda f: ["select", str(f / "results" / "Task01_Ball"), *_out(f), *_CPU, *ENGINE],
    ),
)


def _label_folders(folder: Path) -> list[str]:
    labels = str(folder / TASK / "labelsTr")
    return ["--preds", labels, "--lbls", labels]


def make_inputs(needs: str) -> Files:
    """Return the files of the inputs that a scenario needs."""
    if needs == "models":
        return {"model.zip": make_nnunet_zip(), "model.ckpt": make_dynunet_checkpoint()}
    if needs == "configurations":
        return make_configurations()
    workspace = make_workspace(trained=needs == "trained", n_tests=1)
    if needs == "two datasets":
        workspace |= {f"{OTHER_TASK}/{name}": content for name, content in make_dataset(3).items()}
    kept = {"prepared": ("raw/", "prepared/"), "trained": ("raw/", "prepared/", "results/")}.get(needs, ("raw/",))
    return {name: content for name, content in workspace.items() if name.startswith(kept)}


def says_finished(output: str) -> bool:
    """Whether a repeated command was rejected because the results are there; then they have to be whole."""
    return "E-OUTPUT-EXISTS" in output


def has_whole_model(folder: Path) -> str:
    """Return what is missing of a finished training, empty if nothing is."""
    from decathlete.models.bundle import ModelBundle

    models = [p for p in (folder / "results").rglob("model") if p.is_dir()]
    if not models:
        return "no model"
    try:
        for model in models:
            ModelBundle.load(model).build()
    except Exception as problem:
        return f"the model cannot be loaded: {problem}"
    return ""
