"""``docs/reference/recipe.md``: what it says of our commands, options, fields and defaults is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from decathlete.augmentation.config import AugmentationConfig
from decathlete.augmentation.transforms import TransformSettings
from decathlete.cli.main import app
from decathlete.errors import OptionError
from decathlete.networks.unet_spec import UNetSpec
from decathlete.planning.plan import Plan, Resampling
from decathlete.planning.presets import load_preset
from decathlete.training.config import TrainConfig
from decathlete.training.short_forms import SHORT_FORMS

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "recipe.md"
SIX = ["recipe", "its default", "Decathlete", "our default", "with `--preset recipe`", "why different"]

RECIPE_OPTIONS = {
    "download": "task results",
    "preprocess": "data results exec_mode verbose task dim n_jobs ohe",
    "main": (
        "exec_mode data results logname task dim fold nfolds seed gpus affinity learning_rate weight_decay "
        "momentum gradient_clip_val optimizer scheduler steps factor lr_patience min_epochs max_epochs patience "
        "skip_first_n_eval batch_size val_batch_size num_workers amp tta focal residual norm negative_slope "
        "sync_batchnorm oversampling overlap blend nvol data2d_dim save_ckpt ckpt_path resume_training save_preds "
        "benchmark profile warmup train_batches test_batches "
        "config nodes bind brats deep_supervision deep_supr_num depth min_fmap filters more_chn layout "
        "invert_resampled_y ckpt_store_dir"
    ),
    "evaluate": "preds lbls",
    "scripts/benchmark": (
        "mode task gpus nodes dim batch_size amp bind train_batches test_batches warmup results logname"
    ),
}
"""Every option of the recipe, of 2021 and later."""
RECIPE_STEPS = [
    "scripts/train", "scripts/inference", "input by NVIDIA DALI", "curves",
    "crop with foreground oversampling", "zoom", "mirroring", "Gaussian noise",
    "Gaussian blur", "brightness", "contrast", "rotation", "simulation of low resolution", "gamma",
    "dynamic selection of the patch size", "cascaded U-Net", "crop to non-zero", "resample to the median spacing",
    "anisotropic data: 10th percentile", "pad to the patch", "CT: clip", "MRI: z-score", "2D: slices",
    "2D: centre-cropped or padded", "training, val, test", "fixed patch, spacing and CT statistics",
    "two (convolution, norm, leaky ReLU) per level", "strided convolution down, transposed convolution up",
    "an axis above ratio 2", "loss: (1 - Dice) + cross entropy", "the Dice leaves out the background", "batch Dice",
    "validation by sliding window", "AMP", "TF32", "DDP, one machine", "DDP, several machines", "Docker",
    "notebook: custom dataset", "notebook: BraTS", "deployment by Triton Inference Server",
    "Triton: conversion", "Triton: configuration", "Triton: run inference on the framework",
    "Triton: run inference on Triton", "Triton: calculate metrics", "Triton: offline performance",
    "Triton: online performance",
]  # fmt: skip
"""How the rows begin that are of no option: scripts, network, loss, machine, augmentation, preprocessing."""
MODES_AND_ARTIFACTS = [
    "train", "evaluate (a checkpoint on its fold)", "predict", "5-fold cross-validation, one command per fold",
    "BraTS: overlapping regions, sigmoid, Dice + BCE or focal per region", "sliding window, blended; flips averaged",
    "predictions resized to the original grid", "logs.json: Dice per class, losses, best and its epoch",
    "checkpoints/: last and best", "predictions (.npy)", "perf.json",
]  # fmt: skip
"""Each mode of the recipe, and each kind of file that it writes."""
NO_OPTION = {
    "main --exec_mode", "main --logname", "main --data2d_dim", "main --save_ckpt", "main --ckpt_store_dir",
    "scripts/train", "scripts/inference", "scripts/benchmark --logname", "crop to non-zero",
    "pad to the patch", "2D: centre-cropped or padded to the patch", "loss: (1 - Dice) + cross entropy",
    "the Dice leaves out the background", "TF32", "Docker", "notebook: custom dataset", "notebook: BraTS",
    "deployment by Triton Inference Server", "Triton: conversion to a deployable format",
    "Triton: configuration of the model", "Triton: run inference on the framework", "Triton: run inference on Triton",
    "Triton: calculate metrics", "Triton: offline performance", "Triton: online performance",
}  # fmt: skip
"""Rows whose answer is not an option or a field: a command, a file, something that is always done."""

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
ROOT_OPTIONS = get_command(app).params
SCHEMAS = {
    "Plan": Plan,
    "UNetSpec": UNetSpec,
    "Resampling": Resampling,
    "TrainConfig": TrainConfig,
    "AugmentationConfig": AugmentationConfig,
}
PRESET = load_preset("recipe")
SPAN = re.compile(r"`([^`]*)`")


def tables() -> list[list[list[str]]]:
    """Each table's rows of cells, the header first."""
    found: list[list[list[str]]] = []
    before = ""
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                found.append([])
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if not set(line) <= set("|-"):
                found[-1].append(cells)
        before = line
    return found


TABLES = tables()
ROWS = {row[0].replace("`", ""): row for table in TABLES if table[0] == SIX for row in table[1:]}


def test_no_cell_is_empty_and_no_row_is_short() -> None:
    assert len(TABLES) > 5
    for table in TABLES:
        for row in table:
            assert len(row) == len(table[0]), row
            assert all(row), row


def test_no_two_rows_are_of_the_same() -> None:
    assert len(ROWS) == sum(len(table) - 1 for table in TABLES if table[0] == SIX)


@pytest.mark.parametrize("command", RECIPE_OPTIONS)
def test_every_option_of_the_recipe_has_a_row(command: str) -> None:
    assert [o for o in RECIPE_OPTIONS[command].split() if f"{command} --{o}" not in ROWS] == []


@pytest.mark.parametrize("step", RECIPE_STEPS)
def test_every_step_of_the_recipe_has_a_row(step: str) -> None:
    assert any(name.startswith(step) for name in ROWS)


def test_every_mode_and_artifact_of_the_recipe_has_a_row() -> None:
    (table,) = [table for table in TABLES if table[0] == ["recipe", "Decathlete", "why different"]]
    assert [row[0].replace("`", "") for row in table[1:]] == MODES_AND_ARTIFACTS


def test_what_is_linked_to_is_there() -> None:
    targets = re.findall(r"\]\(([^)#]*)", PAGE.read_text("utf-8"))
    assert len(targets) > 5
    assert [target for target in targets if not (PAGE.parent / target).exists()] == []


@pytest.mark.parametrize("dim", ["2", "3"])
def test_the_file_of_later_defaults_is_taken(dim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, Any] = {}

    def listen(dataset: str, **arguments: Any) -> None:
        heard.update(arguments)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.workflows.run.run", listen)
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    file = tmp_path / "later.yaml"
    file.write_text(text.replace("# nvol", "nvol").replace("4    with", "4  # with") if dim == "2" else text)
    done = CliRunner().invoke(app, ["run", "here", "--dim", dim, "--preset", "recipe", "--config", str(file)])
    assert str(done.exception) == "enough"
    config, window = heard["config"], heard["predict_options"].window
    assert (config.optimizer.component, config.optimizer.learning_rate, config.epochs) == ("adam", 8e-4, 1000)
    assert (config.sampler.oversampling, config.sampler.nvol) == (0.4, 4 if dim == "2" else None)
    assert (config.validation.window.overlap, config.validation.window.blend) == (0.25, "constant")
    assert (window.overlap, window.blend) == (0.25, "constant")


@pytest.mark.parametrize("name", ROWS)
def test_what_a_row_names_has_the_defaults_it_says(name: str) -> None:
    _, _, answer, default, preset, _ = (cell.replace("`", "") for cell in ROWS[name])
    named = [found for span in SPAN.findall(ROWS[name][2]) if (found := defaults_of(span)) is not None]
    assert bool(named) != (name in NO_OPTION), f"{answer}: names no option or field, or is one after all"
    if named:
        assert (default, preset) == named[0], name


def test_all_that_is_named_anywhere_exists() -> None:
    ours = [cell for table in TABLES for row in table[1:] for cell in row[2 if table[0] == SIX else 1 :]]
    spans = [span for cell in ours for span in SPAN.findall(cell)]
    assert len([span for span in spans if defaults_of(span) is not None]) > 100
    alone = {span.split()[0] for span in spans if span.startswith("--")}
    assert alone <= {spelling for command in COMMANDS.values() for p in command.params for spelling in spellings(p)}


@pytest.mark.parametrize("row", TABLES[-1][1:], ids=lambda row: row[0][:40])
def test_what_was_wrong_there_is_shown_to_be_right_here(row: list[str]) -> None:
    file, _, test = SPAN.findall(row[2])[0].partition("::")
    assert f"def {test}(" in (ROOT / file).read_text("utf-8")


def defaults_of(span: str) -> tuple[str, str] | None:
    """Our default and the preset's of `command --option` or `Schema.field`; ``None`` for anything else.

    Raises:
        KeyError: there is no such option or field, though it looks like one.
    """
    if match := re.fullmatch(r"(\w+) --([\w-]+)", span):
        command, option = match.groups()
        if command == "decathlete":
            return shown(next(p for p in ROOT_OPTIONS if f"--{option}" in p.opts)), "same"
        parameters = {spelling: p for p in COMMANDS[command].params for spelling in spellings(p)}
        ours = shown(parameters[f"--{option}"])
        return ours, preset_of(command, parameters[f"--{option}"].name, ours)
    schema, _, field = span.partition(".")
    if schema not in SCHEMAS:
        return None
    if SCHEMAS[schema] is AugmentationConfig:
        each = (AugmentationConfig.default(3), AugmentationConfig.recipe(3))
        ours, theirs = (strength(config[field]) for config in each)
        return ours, theirs
    if schema == "TrainConfig" and (field in SHORT_FORMS or "." in field):
        value: Any = TrainConfig()
        for name in SHORT_FORMS.get(field, field).split("."):
            value = getattr(value, name)
        return plain(value), "same"
    info = SCHEMAS[schema].model_fields[field]
    return ("planned" if info.is_required() else plain(info.default)), "same"


def spellings(parameter: Any) -> list[str]:
    """Of an option, that to switch it off, too."""
    return [*parameter.opts, *parameter.secondary_opts]


def shown(parameter: Any) -> str:
    """The default of an option as its help says it."""
    if parameter.required:
        return "required"
    if parameter.default is None:
        return parameter.show_default if isinstance(parameter.show_default, str) else "none"
    return plain(parameter.default)


def plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def preset_of(command: str, name: str, ours: str) -> str:
    """What ``--preset recipe`` makes the default of a command's option; ``same`` where it leaves it."""
    if not any(p.name == "preset" for p in COMMANDS[command].params):
        return "same"
    if name == "batch_size":
        return f"{PRESET.batch_size_3d} in 3D, {PRESET.batch_size_2d} in 2D"
    if name == "nvol":
        return f"{PRESET.nvol_2d} in 2D"
    values = PRESET.plan | PRESET.train
    theirs = plain(values[name]) if name in values else ours
    return "same" if theirs == ours else theirs


def strength(transform: TransformSettings) -> str:
    """A random change in words: its range, if it has one, and its probability."""
    if not transform.enabled:
        return "off"
    between = getattr(transform, "between", None)
    return (
        f"{between[0]:g} to {between[1]:g}, p {transform.probability:g}" if between else f"p {transform.probability:g}"
    )
