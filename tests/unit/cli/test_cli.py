"""The command line's surface: what it is called, how fast it answers, how it spells options."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from decathlete import BenchmarkOptions, PlanOptions, PredictOptions, SlidingWindow, TrainConfig
from decathlete.augmentation.config import AugmentationConfig
from decathlete.cli.advanced_training_options import FullTrainArguments
from decathlete.cli.command_table import COMMANDS as ONE_WORD
from decathlete.cli.command_table import GROUPS
from decathlete.cli.main import app
from decathlete.cli.plan_options import FullPlanArguments, PlanArguments
from decathlete.cli.prediction_options import PredictionArguments, SlidingWindowArguments
from decathlete.cli.training_options import TrainArguments
from decathlete.errors import DecathleteError, OptionError
from decathlete.planning.overrides import preset_options
from decathlete.workflows.train import train_config

SOURCES = ONE_WORD | {
    f"{group} {name}": source for group, (_, sources) in GROUPS.items() for name, source in sources.items()
}
COMMANDS = [
    "run",
    "demo",
    "download",
    "convert",
    "check",
    "preprocess",
    "train",
    "validate",
    "predict",
    "evaluate",
    "report",
    "select",
    "benchmark",
    "components",
    "serve",
    "import nnunet",
    "import dynunet",
    "export nnunet",
    "export onnx",
    "export openvino",
    "export triton",
    "triton start",
    "triton verify",
    "triton benchmark",
]


def test_the_commands_are_these() -> None:
    assert list(_commands(get_command(app))) == COMMANDS


def _commands(group: Any) -> dict[str, Any]:
    """By name; of those in a group, both words."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        inside = _commands(command) if hasattr(command, "commands") else {"": command}
        found |= {f"{name} {second}".strip(): below for second, below in inside.items()}
    return found


NETWORK = "architecture deep-supervision depth filters heads min-fmap negative-slope network wide-encoder"
REGIONS = "brats regions regions-order"
PLAN = (
    f"{NETWORK} {REGIONS} annotated block adapt foreground-channel group-by memory mirror-pairs n-folds norm "
    "orientation preprocessing-order set split-seed splits"
)
TRAINING = (
    "affinity augment batch-size compile deterministic device devices ema-decay epochs factor focal freeze-stages "
    "gradient-clip layout learning-rate loader logger loss lr-patience max-time min-epochs mlflow-uri "
    "momentum nvol optimizer oversampling patience precision pretrained readers restarts sampler schedule seed "
    "skip-first steps steps-per-epoch sync-batchnorm val-batch-size val-blend val-cases val-every val-overlap "
    "wandb-mode warmup weight-decay"
)
OPTIONS = {
    "run": f"{PLAN} {TRAINING} blend channels classes cluster configuration configurations max-members total-time data "
    "dim engine fold fold-resources folds images label-suffix labels metrics overlap overwrite prepared preset results "
    "spacing structures test-images tta workers",
    "demo": "folder max-time overwrite workers",
    "download": "data region task url",
    "convert": f"{REGIONS} channels classes copy data group-by images label-suffix labels merge output overwrite "
    "set spacing structures suffix test-images to workers",
    "check": f"{REGIONS} annotated cluster data group-by json n-folds set spacing split-seed splits workers",
    "preprocess": f"{PLAN.replace('adapt ', '')} cluster configuration data dim max-time mode model overwrite "
    "plan-from prepared preset results spacing task workers",
    "train": f"{TRAINING} configuration data dim adapt fold nodes overwrite prepared preset results resume set task",
    "validate": "batch-size blend cluster dataset device engine grid json layout memory metrics model overlap "
    "overwrite precision set tolerance tta workers",
    "predict": "batch-size blend cases cluster device dicom-codes engine format input layout memory model output "
    "overlap overwrite precision save-probabilities segmentation-type series set spacing tta",
    "evaluate": f"{REGIONS} annotated cluster json lbls metrics output overwrite preds set spacing tolerance workers",
    "report": "dataset model",
    "select": "batch-size blend cluster dataset device engine group-by json layout max-members memory metrics output "
    "overlap overwrite precision set tta workers",
    "components": "json",
    "serve": "allow-host allow-origin batch-size blend data device dicom-caller dicom-codes dicom-host "
    "dicom-max-storage dicom-node dicomweb dicomweb-every engine host keep layout max-image max-jobs max-time "
    "max-upload memory model model-memory overlap port precision send-to series set spacing studies token-file tta",
    "export nnunet": "output overwrite",
    "export onnx": "input output overwrite set spacing",
    "export openvino": "calibration dataset input int8 output overwrite set spacing",
    "export triton": "accelerator calibration code cuda-graphs dataset dynamic-shapes engine environment format input "
    "instance-kind instances max-batch-size max-shape min-shape models name opt-shape output overwrite precision "
    "preferred-batch-sizes priority queue-delay resource response-cache set spacing threads version version-policy "
    "warmup-requests",
    "triton start": "grpc-port host http-port load metrics-port model-control server",
    "triton verify": "at-once dump engine grpc http input json max-cases max-changed max-logit-difference max-margin "
    "min-dice models name protocol retries send set spacing timeout",
    "triton benchmark": "batch-sizes clients grpc http input max-windows models name output protocol retries "
    "set shared-memory spacing stability timeout warmup-requests window",
    "import nnunet": "checkpoint configuration folds output overwrite",
    "import dynunet": "brats channels ct-stats dataset dim labels modality negative-slope norm output overwrite "
    "patch-size regions spacing task",
    "benchmark": f"{NETWORK} amp augment batch-size blend compile data device devices dim json layout mode overlap "
    "patch precision prepared profile real results set shape steps task tta volumes warmup",
}


def _options(command: str) -> dict[str, Any]:
    parameters = _commands(get_command(app))[command].params
    named = {next(o for o in p.opts if o.startswith("--")): p for p in parameters if p.param_type_name == "option"}
    return {name.removeprefix("--"): option for name, option in named.items()}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_are_these(command: str) -> None:
    assert sorted(_options(command)) == sorted(["config", "plugin", *OPTIONS[command].split()])


OF_THEIR_OWN = {
    ("benchmark", "augment"),  # the recipe's benchmark does not: off unless asked for
    ("benchmark", "steps"),  # measured ones
    ("benchmark", "warmup"),  # steps, too
    ("benchmark", "batch-size"),  # patches to train on, or windows
    ("benchmark", "task"),  # random data like the Decathlon's, or a dataset
    ("convert", "output"),
    ("demo", "max-time"),  # how long is not asked but said
    ("download", "data"),  # the only one that writes there
    ("download", "task"),  # one of the Decathlon's, not of --data
    ("validate", "batch-size"),  # windows, not patches to train on
    ("predict", "batch-size"),
    ("validate", "set"),  # of metrics and the engine, not of the plan and the training
    ("check", "set"),  # of image formats alone
    ("evaluate", "set"),
    ("predict", "set"),  # of the engine and of image formats
    ("convert", "set"),  # of image formats
    ("select", "set"),  # of the engine
    ("serve", "set"),
    ("validate", "memory"),  # of the computer, not of the GPU that a plan is made for
    ("predict", "memory"),
    ("select", "memory"),
    ("export triton", "format"),  # of the network, not of label maps
    ("select", "batch-size"),
    ("predict", "model"),  # or several
    ("serve", "model"),  # with names
    ("serve", "data"),  # of the service
    ("serve", "max-time"),  # of a job
    ("serve", "batch-size"),
    ("serve", "memory"),
    ("preprocess", "max-time"),  # of the training that follows
    ("preprocess", "model"),  # of val and test alone
    ("preprocess", "mode"),  # what to prepare for, not what to measure
    ("predict", "output"),
    ("select", "output"),
    ("import nnunet", "output"),  # the model
    ("import nnunet", "configuration"),  # nnU-Net's
    ("export nnunet", "output"),  # nnU-Net's model
    ("serve", "series"),  # of the DICOM node
    *((command, "set") for command in ("export onnx", "export openvino", "triton verify", "triton benchmark")),
    ("export onnx", "output"),  # a file, or a folder
    ("export openvino", "output"),
    ("export onnx", "input"),  # to check the program on
    ("export openvino", "input"),
    ("export openvino", "dataset"),  # or labelled cases to validate on
    *(
        ("export triton", name)
        for name in ("calibration", "dataset", "engine", "input", "name", "output", "precision", "set")
    ),
    ("export triton", "warmup-requests"),  # that the server computes
    *(("triton verify", name) for name in ("engine", "input", "protocol")),  # of the pipeline; to send
    *(("triton benchmark", name) for name in ("input", "models", "output", "protocol")),  # one at a time
    ("import dynunet", "output"),
    ("import dynunet", "task"),  # of the recipe
    ("import dynunet", "dataset"),  # for its names alone
    ("import dynunet", "dim"),  # what is imported has to be, or has been trained with
    ("import dynunet", "norm"),
    ("import dynunet", "negative-slope"),
    ("import dynunet", "brats"),  # what the outputs are
    ("import dynunet", "regions"),
    ("import dynunet", "channels"),  # names, not how files are called
    ("import dynunet", "labels"),
    ("import dynunet", "spacing"),  # the target, not that of files
    *(
        ("run", name)
        for name in ("images", "labels", "test-images", "channels", "classes", "label-suffix", "structures")
    ),  # no SOURCE
    ("import nnunet", "folds"),  # of nnU-Net, that are there
}


def test_the_same_option_is_said_alike_everywhere() -> None:
    said: dict[str, set[tuple[Any, ...]]] = {}
    for command in COMMANDS:
        for name, option in _options(command).items():
            if (command, name) not in OF_THEIR_OWN:
                said.setdefault(name, set()).add((option.help, str(option.default), option.rich_help_panel))
    assert [name for name, ways in said.items() if len(ways) > 1] == []


def test_defaults_are_those_of_the_python_functions() -> None:
    assert PlanArguments().to_plan_options() == FullPlanArguments().to_plan_options() == PlanOptions()
    assert TrainArguments().to_train_config() == FullTrainArguments().to_train_config() == TrainConfig()
    for arguments in (SlidingWindowArguments(), PredictionArguments()):
        assert arguments.to_predict_options(device="auto", precision="auto") == PredictOptions()


@pytest.mark.parametrize("columns", [80, 110])
def test_help_groups_options_and_shows_defaults_choices_and_units(columns: int) -> None:
    runner = CliRunner(env={"COLUMNS": str(columns), "TERMINAL_WIDTH": str(columns)})
    said = " ".join(runner.invoke(app, ["run", "--help"]).output.split())
    for part in ("Plan: --memory GB", "Length of training: --max-time DURATION", "Machine:", "Folders:"):
        assert part in said
    for part in ("--norm <instance|batch|group>", "[default: (8)", "default: (the plan's)", "90s, 20m, 1h30m"):
        assert part in said


def test_help_shows_choices_as_folders_are_called_and_both_spellings_are_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = " ".join(CliRunner().invoke(app, ["run", "--help"]).output.split())
    for shown in ("<2d|3d|3d_lowres|3d_cascade>", "socket_unique_interleaved|", "<auto|channels_first|channels_last>"):
        assert shown in said
    heard: list[Any] = []

    def listen(task: str, **arguments: Any) -> None:
        heard.append(arguments["configuration"])
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.workflows.run.run", listen)
    for spelling in ("3d_lowres", "3d-lowres"):
        CliRunner().invoke(app, ["run", "somewhere", "--configuration", spelling])
    assert heard == ["3d_lowres", "3d_lowres"]


@pytest.mark.parametrize("group", [[], ["import"], ["export"], ["triton"]])
def test_the_list_of_commands_fits_on_80_columns(group: list[str]) -> None:
    said = CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).invoke(app, [*group, "--help"]).output
    assert "..." not in said.partition("Commands:")[2]


def test_run_hands_on_every_group(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, Any] = {}

    def listen(task: str, **arguments: Any) -> None:
        heard.update(arguments, task=task)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.workflows.run.run", listen)
    network = "--filters 8,16,24 --depth 1 --min-fmap 6 --negative-slope 0.2 --no-deep-supervision"
    regions = "--regions a=1,2;b=2 --regions-order 1,2 --foreground-channel"
    options = f"{network} {regions} --n-folds 3 --preprocessing-order recipe --norm batch --memory 4 --no-adapt"
    options += " --set batch_size=3 --set preprocessing_order=recipe"
    training = (
        "--max-time 2m --batch-size 4 --optimizer sgd --no-augment --device cpu --precision fp32 --overlap 0.25 --dim 2"
    )
    CliRunner().invoke(app, ["run", "somewhere", *options.split(), *training.split()])
    assert (heard["task"], heard["dims"], heard["adapt"]) == ("somewhere", 2, False)
    overrides = ("batch_size=3", "preprocessing_order=recipe")
    assert heard["plan_options"] == PlanOptions(
        regions="a=1,2;b=2",
        regions_order=(1, 2),
        foreground_channel=True,
        n_folds=3,
        preprocessing_order="recipe",
        norm="batch",
        memory_gb=4,
        overrides=overrides,
        filters=(8, 16, 24),
        depth=1,
        min_fmap=6,
        negative_slope=0.2,
        deep_supervision=False,
    )
    config = TrainConfig(
        max_time_s=120,
        batch_size=4,
        optimizer="sgd",
        augmentation=AugmentationConfig.none(),
        device="cpu",
        precision="fp32",
    )
    assert heard["config"] == config
    assert heard["predict_options"] == PredictOptions(device="cpu", precision="fp32", overlap=0.25)


FINER = {
    "--schedule multistep --epochs 300 --steps 100,200 --factor 0.5 --warmup 0": TrainConfig(
        schedule="multistep", epochs=300, steps=(100, 200), factor=0.5, warmup=0
    ),
    "--schedule plateau --lr_patience 7": TrainConfig(schedule="plateau", lr_patience=7),
    "--restarts 2": TrainConfig(restarts=2),
    "--optimizer sgd --momentum 0.95 --weight_decay 0 --gradient-clip 2": TrainConfig(
        optimizer="sgd", momentum=0.95, weight_decay=0, gradient_clip=2
    ),
    "--focal --ema-decay 0 --oversampling 0.5 --nvol 4 --dim 2 --sync-batchnorm": TrainConfig(
        loss="focal", ema_decay=0, oversampling=0.5, nvol=4, sync_batchnorm=True
    ),
    "--compile --affinity single_unique --devices 2": TrainConfig(compile=True, affinity="single_unique", devices=2),
    "--patience 9 --min-epochs 30 --skip-first 3 --val-every 2": TrainConfig(
        patience=9, min_epochs=30, skip_first=3, val_every=2
    ),
    "--layout channels_last": TrainConfig(layout="channels_last"),
    "--val-cases 3 --val-overlap 0.25 --val-blend constant --val-batch-size 1 --readers 8": TrainConfig(
        val_cases=3, val_overlap=0.25, val_blend="constant", val_batch_size=1, readers=8
    ),
    "--logger tensorboard,wandb,mlflow --wandb-mode online --mlflow-uri sqlite:///a.db": TrainConfig(
        loggers=("tensorboard", "wandb", "mlflow"), wandb_mode="online", mlflow_uri="sqlite:///a.db"
    ),
    "--logger none": TrainConfig(loggers=()),
}


@pytest.mark.parametrize("given", FINER)
@pytest.mark.parametrize(("command", "workflow"), [("run x", "run.run"), ("train --task x", "train.train")])
def test_the_finer_options_of_training_arrive(command, workflow, given, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, Any] = {}

    def listen(task: str, **arguments: Any) -> None:
        heard.update(arguments)
        raise OptionError("enough")

    monkeypatch.setattr(f"decathlete.workflows.{workflow}", listen)
    CliRunner().invoke(app, [*command.split(), *given.split()])
    assert heard["config"] == FINER[given]


IDLE = {
    "--factor 0.5": "factor is not a setting of the schedule cosine",
    "--lr-patience 70": "lr_patience is not a setting of the schedule cosine",
    "--schedule poly --restarts 0": "restarts is not a setting of the schedule poly",
    "--schedule none --warmup 0.1": "warmup is not a setting of the schedule none (which has none): leave it out",
    "--preset recipe --warmup 0.1": "warmup is not a setting of the schedule none (which has none): leave it out",
    "--optimizer adam --momentum 0.9": "momentum is not a setting of the optimizer adam",
    "--max-time 20m --val-every 1 --steps-per-epoch 9": "2 problems",
    "--nvol 2": "nvol is for 2D models",
    "--val-cases 0 --val-blend constant": "val_blend is for validations, and val_cases is 0",
    **{
        f"--fold all --{name.replace('_', '-')} {value}": f"{name} is for validations, and fold all has none"
        for name, value in {
            "val_cases": 3,
            "val_every": 2,
            "skip_first": 1,
            "val_overlap": 0.25,
            "val_blend": "constant",
            "val_batch_size": 1,
        }.items()
    },
    "--wandb-mode online": "wandb_mode is for the logger wandb",
    "--logger wandb --mlflow-uri sqlite:///a.db": "mlflow_uri is for the logger mlflow",
}


@pytest.mark.parametrize("given", IDLE)
@pytest.mark.parametrize("command", ["train --task x", "run x"])
def test_options_without_effect_are_refused(command: str, given: str) -> None:
    problem = CliRunner().invoke(app, [*command.split(), *given.split()]).exception
    assert isinstance(problem, OptionError)
    assert IDLE[given] in str(problem)


@pytest.mark.parametrize(("said", "uri"), [("--logger mlflow", "sqlite:///s.db"), ("--logger none", None)])
def test_where_mlflow_keeps_runs_may_be_said_by_the_surroundings(
    said: str, uri: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[str, Any] = {}

    def listen(task: str, **arguments: Any) -> None:
        heard.update(arguments)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.workflows.train.train", listen)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///s.db")
    CliRunner().invoke(app, ["train", "--task", "x", *said.split()])
    assert [logger.uri for logger in heard["config"].loggers] == ([uri] if uri else [])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_preset_is_the_defaults_and_flags_win(dims: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, Any] = {}

    def listen(task: str, **arguments: Any) -> None:
        heard.update(arguments)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.workflows.run.run", listen)
    (tmp_path / "o.yaml").write_text("patience: 7\ndepth: 4")
    given = f"run x --config {tmp_path / 'o.yaml'} --preset recipe --dim {dims} --epochs 9 --norm batch"
    CliRunner().invoke(app, given.split())
    assert heard["plan_options"] == preset_options("recipe", norm="batch", depth=4)
    config = heard["config"]
    assert config == train_config(preset="recipe", dims=dims, epochs=9, patience=7)
    assert (config.optimizer.component, config.optimizer.learning_rate) == ("adam", 8e-4)
    assert config.sampler.nvol == (1 if dims == 2 else None)
    assert config.augmentation == AugmentationConfig.recipe(dims)
    (tmp_path / "o.yaml").write_text("max_time: 2m")
    for order in (f"--preset recipe --config {tmp_path / 'o.yaml'}", f"--config {tmp_path / 'o.yaml'} --preset recipe"):
        CliRunner().invoke(app, ["run", "x", *order.split()])
        assert (heard["config"].max_time_s, heard["config"].epochs) == (120, None)


@pytest.mark.parametrize(
    ("command", "given"),
    [("validate", "--model m"), ("predict", "--model m --input i --output o")],
)
def test_windows_computed_together_are_handed_on(command: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, Any] = {}

    def listen(*_: Any, **arguments: Any) -> None:
        heard.update(arguments)
        raise OptionError("enough")

    monkeypatch.setattr(f"decathlete.workflows.{command}.{command}", listen)
    CliRunner().invoke(
        app, [command, *given.split(), "--batch-size", "3", "--tta", "--layout", "channels-last", "--engine", "onnx"]
    )
    assert heard["options"] == PredictOptions(batch_size=3, tta=True, layout="channels_last", engine="onnx")
    assert heard.get("cases") is None
    if command == "predict":
        CliRunner().invoke(app, [command, *given.split(), "--cases", "2"])
        assert heard["cases"] == 2


def test_benchmark_hands_on_all_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, Any] = {}

    def listen(options: Any, **arguments: Any) -> None:
        heard.update(arguments, options=options)
        raise OptionError("enough")

    monkeypatch.setattr("decathlete.benchmarking.run.benchmark", listen)
    CliRunner().invoke(app, ["benchmark", "--mode", "train"])
    assert heard["options"] == BenchmarkOptions(mode="train")
    work = "--set network.norm=batch --dim 2 --task 04 --batch-size 3 --patch 16,8 --filters 4,8 --no-deep-supervision"
    how = "--tta --volumes --shape 9,8,7 --overlap 0.25 --blend constant --warmup 1 --steps 2 --profile --amp"
    where = "--layout channels_last --device cpu --devices 2 --results r"
    CliRunner().invoke(app, ["benchmark", "--mode", "predict", *work.split(), *how.split(), *where.split()])
    assert heard["options"] == BenchmarkOptions(
        mode="predict",
        dims=2,
        task="04",
        batch_size=3,
        patch=(16, 8),
        plan=PlanOptions(filters=(4, 8), deep_supervision=False, overrides=("network.norm=batch",)),
        window=SlidingWindow(tta=True, overlap=0.25, blend="constant"),
        volumes=True,
        shape=(9, 8, 7),
        warmup=1,
        steps=2,
        profile=True,
        amp=True,
        layout="channels_last",
        device="cpu",
        devices=2,
    )
    assert heard["workspace"].results == Path("r")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--mode predict --patch 8,x,8", "--patch '8,x,8' is not a list"),
        ("--mode train --tta", "mode predict"),
        ("--mode train --amp --precision fp32", "not both"),
        ("--mode predict --compile", "only in mode train"),
    ],
)
def test_benchmark_refuses_with_one_message(given: str, said: str) -> None:
    problem = CliRunner().invoke(app, ["benchmark", *given.split()]).exception
    assert isinstance(problem, OptionError)
    assert said in str(problem)


def test_downloads_regions_are_listed() -> None:
    said = " ".join(CliRunner().invoke(app, ["download", "--help"]).output.split())
    assert "--region <us|eu>" in said
    assert "Folders: --data DIR" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is(command: str) -> None:
    for parameter in _commands(get_command(app))[command].params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{command} {parameter.opts[0]} has no help"
    assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_switch_can_be_undone(command: str) -> None:
    switches = [option for option in _options(command).values() if option.is_flag and option.name != "help"]
    assert [option.name for option in switches if not option.secondary_opts] == []


def test_help_loads_few_packages() -> None:
    """So that it answers at once: `benchmarks/startup.py` measures how soon."""
    code = (
        "import sys; from decathlete.cli.main import main; sys.argv = ['decathlete', '--help']\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code, ended\n"
        "places = {n: str(getattr(m, '__file__', '')) for n, m in sys.modules.items() if '.' not in n}\n"
        "print('PACKAGES', *(n for n, place in places.items() if 'site-packages' in place and n[0] != '_'))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    loaded = set(found.rpartition("PACKAGES")[2].split())
    assert "typer" in loaded
    assert loaded <= {"annotated_doc", "click", "decathlete", "lazy_loader", "shellingham", "typer"}


def test_a_call_imports_the_module_of_its_own_command_alone() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from decathlete.cli.main import app\n"
        f"modules = {sorted({source.function.partition(':')[0] for source in SOURCES.values()})}\n"
        "for arguments in (['--help'], ['check', '--help']):\n"
        "    assert CliRunner().invoke(app, arguments).exit_code == 0\n"
        "    print([name for name in modules if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert found.splitlines() == ["[]", "['decathlete.cli.data']"]


@pytest.mark.parametrize("name", SOURCES)
def test_summary_of_a_command_is_the_first_sentence_of_its_help(name: str) -> None:
    module, _, function = SOURCES[name].function.partition(":")
    text = " ".join(getattr(import_module(module), function).__doc__.split())
    assert re.match(r".*?[.](?= [A-Z`(]|$)", text).group() == SOURCES[name].summary


def test_every_commands_help_answers_without_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from decathlete.cli.main import app\n"
        f"for command in {COMMANDS}: assert CliRunner().invoke(app, [*command.split(), '--help']).exit_code == 0\n"
        "print(sorted({'torch', 'numpy', 'lightning'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_help_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, decathlete.cli.main; print(sorted({'torch', 'numpy', 'pydantic', 'lightning'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_preprocess_starts_without_training() -> None:
    """Importing Lightning costs as much processor time as torch and everything else that the command needs."""
    code = (
        "import sys, decathlete.cli.data, decathlete.cli.progress, decathlete.workflows.preprocess\n"
        "print(sorted({'lightning', 'decathlete.training.config', 'decathlete.models.bundle'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_underscores_are_hyphens() -> None:
    said = CliRunner().invoke(app, ["train", "--task", "none-such", "--max_time", "soon", "--batch_size", "2"])
    assert "No such option" not in said.output


def test_an_unknown_option_is_refused() -> None:
    assert CliRunner().invoke(app, ["train", "--task", "04", "--bogus"]).exit_code == 2


def test_the_version_is_printed() -> None:
    assert "decathlete 0." in CliRunner().invoke(app, ["--version"]).output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--learning-rate 0.1 --set learning_rate=0.5", "choose the same setting"),
        ("--learning-rate 0.1 --set optimizer.learning_rate=0.5", "choose the same setting"),
        ("--max-time 2m --no-augment --set augmentation.policy=heavy", "--no-augment disables"),
    ],
)
def test_two_values_of_one_setting_are_rejected(options, message) -> None:
    result = CliRunner().invoke(app, ["run", "somewhere", *options.split()])
    assert isinstance(result.exception, OptionError)
    assert message in str(result.exception)


HUGE = "9" * 5000


@pytest.mark.parametrize("text", [HUGE, "²", "٣" * 20], ids=["5000 digits", "superscript", "other digits"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "{}"),
        ("train", "--task", "{}"),
        ("train", "--task", "x", "--fold", "{}"),
        ("run", "x", "--folds", "{}"),
        ("run", "x", "--folds", "0-{}"),
        ("run", "x", "--max-time", "{}h"),
        ("preprocess", "--task", "x", "--filters", "{}"),
        ("download", "--task", "{}"),
    ],
    ids=" ".join,
)
def test_texts_that_are_nearly_numbers_are_rejected(
    arguments: tuple[str, ...], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [part.format(text) for part in arguments])
    assert isinstance(done.exception, OSError | DecathleteError | SystemExit), done.exception
    assert done.exit_code != 0
