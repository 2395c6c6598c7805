"""Curves beside ``logs.json``: each logger has the figures of the same epochs, and none of them can end a training."""

from __future__ import annotations

import json
import signal
import struct
from pathlib import Path
from typing import Any

import pytest

from decathlete.errors import InterruptedRunError, OptionError
from decathlete.models.bundle import ModelBundle
from decathlete.preprocessing.store import PreparedStore
from decathlete.training.reporting.curves import LoggerRuns, figures
from decathlete.training.reporting.loggers import LOGGERS, PackageLogger
from decathlete.training.reporting.records import EpochRecord, Logs
from decathlete.training.run import train
from training_support import KillAt, make_store, tiny_config

HYPERPARAMETERS = ("config/steps_per_epoch", "plan/patch_size")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PreparedStore:
    return make_store(tmp_path_factory.mktemp("store"))


def train_in_two_goes(store: PreparedStore, folder: Path, **options: Any) -> tuple[EpochRecord, ...]:
    """Three epochs of two steps; after the third step the training is stopped and goes on."""
    config = tiny_config(epochs=3, steps_per_epoch=2, **options)
    with pytest.raises(InterruptedRunError):
        train(store, 0, folder, config, progress=KillAt(3, signal.SIGINT))
    train(store, 0, folder, config, resume=True)
    return Logs.load(folder / "logs.json").epochs


def curves_of(epochs: tuple[EpochRecord, ...]) -> dict[str, list[tuple[int, float]]]:
    """What every logger must hold: name -> (step, value)."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in epochs:
        for name, value in figures(record).items():
            curves.setdefault(name, []).append((record.step, pytest.approx(value, rel=1e-6)))
    return curves


def test_logs_json_has_after_each_epoch_what_the_recipes_has(store: PreparedStore, tmp_path: Path) -> None:
    """Dice per class, their mean, the best and its epoch, both losses: each what it says."""
    epochs = train_in_two_goes(store, tmp_path / "run")
    assert [record.epoch for record in epochs] == [0, 1, 2]
    best = 0.0
    for record in epochs:
        assert set(record.dice) == {"c1", "c2"}
        assert record.mean_dice == pytest.approx(sum(record.dice.values()) / 2)
        best = max(best, record.mean_dice)
        assert record.best_dice == best
        assert epochs[record.best_epoch].mean_dice == best
        assert 0 < record.train_loss < 5
        assert 0 < record.val_loss < 5
    written = json.loads((tmp_path / "run" / "logs.json").read_text())["epochs"][-1]
    assert {"dice", "mean_dice", "best_dice", "best_epoch", "train_loss", "val_loss"} <= written.keys()


def test_figures_are_each_under_a_name_that_all_loggers_take() -> None:
    record = EpochRecord(
        epoch=0, step=4, seconds=1, elapsed=1, train_loss=0.5, learning_rate=0.1, patches_per_second=3,
        dice={"mean": 0.1, "tumour (core)": 0.2, "tumour [core]": 0.3, "腫瘍": None}, mean_dice=0.2, best_dice=0.4,
    )  # fmt: skip
    assert figures(record) == {
        "loss/train": 0.5,
        "mean_dice": 0.2,
        "best_dice": 0.4,
        "dice/mean": 0.1,
        "dice/tumour _core_": 0.2,
        "dice/tumour _core_ 2": 0.3,
        "learning_rate": 0.1,
        "patches_per_second": 3,
    }


def test_tensorboard_has_the_curves_in_one_run_also_after_a_resumption(store: PreparedStore, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    epochs = train_in_two_goes(store, tmp_path / "run", loggers=("tensorboard",))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    # files of one second are read in the order of their names, which need not be that of the trainings
    found = {tag: sorted((e.step, e.value) for e in events.Scalars(tag)) for tag in tags["scalars"]}
    assert found == curves_of(epochs)
    (text,) = tags["tensors"]
    (told,) = events.Tensors(text)  # once, not again on resuming
    said = told.tensor_proto.string_val[0].decode()
    assert "steps_per_epoch: 2" in said
    assert "patch_size: [" in said
    assert str(store.folder) not in said


def test_by_default_tensorboard_is_told_where_it_is_installed(
    store: PreparedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PackageLogger, "is_installed", classmethod(lambda cls: False))
    config = tiny_config(epochs=1, steps_per_epoch=1, val_cases=0, loggers=None)
    train(store, 0, tmp_path / "without", config)
    assert not (tmp_path / "without" / "tensorboard").exists()
    assert recorded_loggers(tmp_path / "without") == []
    with pytest.raises(OptionError, match="wandb,mlflow: not installed") as caught:
        train(store, 0, tmp_path / "no", config.revised(loggers=("wandb", "mlflow")))
    assert 'pip install ".[wandb,mlflow]"' in str(caught.value)
    assert not (tmp_path / "no").exists()
    monkeypatch.undo()
    pytest.importorskip("tensorboard")
    train(store, 0, tmp_path / "with", config)
    assert list((tmp_path / "with" / "tensorboard").glob("events.*"))
    assert recorded_loggers(tmp_path / "with") == ["tensorboard"]


def test_a_logger_that_fails_costs_a_warning_and_nothing_else(
    store: PreparedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    def full(self: SummaryWriter, *_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    train(store, 0, tmp_path / "run", tiny_config(steps_per_epoch=1, val_cases=0, loggers=("tensorboard",)))
    assert len(Logs.load(tmp_path / "run" / "logs.json").epochs) == 2
    said = [record.message for record in caplog.records if "is disabled" in record.message]
    assert len(said) == 1
    assert "No space left on device" in said[0]


def recorded_loggers(folder: Path) -> list[str]:
    """The loggers among the components that the model was trained with."""
    (member,) = ModelBundle.load(folder / "model").record.members
    return [origin.name for origin in member.components if origin.kind == "logger"]


def tensorboard_steps(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars("loss/train")]


def test_a_logger_that_joins_on_resuming_hears_of_earlier_epochs(store: PreparedStore, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = tiny_config(epochs=2, steps_per_epoch=2, val_cases=0)
    with pytest.raises(InterruptedRunError):
        train(store, 0, tmp_path / "run", config, progress=KillAt(3, signal.SIGINT))
    assert not (tmp_path / "run" / "tensorboard").exists()
    train(store, 0, tmp_path / "run", config.revised(loggers=("tensorboard",)), resume=True)
    assert tensorboard_steps(tmp_path / "run") == [2, 4]


@pytest.mark.full
def test_of_several_processes_the_first_alone_tells(store: PreparedStore, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = tiny_config(epochs=1, steps_per_epoch=1, devices=2, val_cases=0, loggers=("tensorboard",))
    train(store, 0, tmp_path / "run", config)
    assert len(list((tmp_path / "run" / "tensorboard").glob("events.*"))) == 1
    assert tensorboard_steps(tmp_path / "run") == [1]


@pytest.mark.full
def test_mlflow_keeps_one_run_in_the_runs_folder(
    store: PreparedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    epochs = train_in_two_goes(store, tmp_path / "run", loggers=("mlflow",))
    client = MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("Test")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert LoggerRuns.load(tmp_path / "run" / "loggers.json").runs == {"mlflow": run.info.run_id}
    found = {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics
    }
    assert found == curves_of(epochs)
    assert [run.data.params[name] for name in HYPERPARAMETERS] == ["2", "[16, 16, 16]"]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "3d run")
    assert [run.data.tags[f"mlflow.{name}"] for name in ("user", "source.name")] == ["unknown", "decathlete"]
    assert str(store.folder) not in str(run.to_dictionary())
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    other = f"sqlite:///{tmp_path / 'shared.db'}"
    config = tiny_config(epochs=1, steps_per_epoch=1, val_cases=0, loggers=("mlflow",), mlflow_uri=other)
    train(store, 0, tmp_path / "other", config)
    assert not (tmp_path / "other" / "mlflow").exists()
    assert MlflowClient(other).get_experiment_by_name("Test") is not None


@pytest.mark.full
def test_mlflow_whose_server_does_not_answer_is_given_up(
    store: PreparedStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    nobody = "http://127.0.0.1:9"
    train(
        store, 0, tmp_path / "run", tiny_config(steps_per_epoch=1, val_cases=0, loggers=("mlflow",), mlflow_uri=nobody)
    )
    assert len([record for record in caplog.records if "mlflow is disabled" in record.message]) == 1
    assert len(Logs.load(tmp_path / "run" / "logs.json").epochs) == 2


@pytest.mark.full
def test_wandb_leaves_one_run_in_the_runs_folder(store: PreparedStore, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    epochs = train_in_two_goes(store, tmp_path / "run", loggers=("wandb",))
    (run_id,) = LoggerRuns.load(tmp_path / "run" / "loggers.json").runs.values()
    folders = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    assert all(f"-{run_id}" in folder.name for folder in folders), "with a number if they began in the same second"
    records = [record for folder in folders for record in wandb_records(folder)]
    found: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item
            }
            step = int(items["trainer/global_step"])
            for name, value in items.items():
                if not name.startswith(("_", "trainer")):
                    found.setdefault(name, []).append((step, value))
    assert found == curves_of(epochs)
    told = [(u.key, json.loads(u.value_json)) for record in records for u in updates(record)]
    (config,) = [value for key, value in told if key == "config"]
    (plan,) = [value for key, value in told if key == "plan"]
    assert (config["steps_per_epoch"], plan["patch_size"]) == (2, [16, 16, 16])
    everything = b"".join(path.read_bytes() for path in (tmp_path / "run" / "wandb").rglob("*") if path.is_file())
    assert str(store.folder).encode() not in everything


def updates(record: Any) -> list[Any]:
    """What a record says of the run's config."""
    return [*record.config.update, *record.run.config.update]


def wandb_records(folder: Path) -> list[Any]:
    """What an offline run wrote: protocol buffers in LevelDB's log format, after a header of 7 bytes.

    A block of 32 kB holds pieces, each with checksum (4 bytes), length (2) and type (1): a whole record (1), its first
    (2), a middle (3) or its last (4) piece.
    """
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("run-*.wandb")
    content, place, records, pieces = path.read_bytes(), 7, [], b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        pieces += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            records.append(wandb_internal_pb2.Record.FromString(pieces))
            pieces = b""
    return records


def test_a_warning_holds_no_password(caplog: pytest.LogCaptureFixture, store: PreparedStore, tmp_path: Path) -> None:
    def failing(*arguments: object, **options: object) -> None:
        raise OSError("API request to https://me:secret@host/api failed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LOGGERS.resolve("tensorboard").cls, "open", failing)
        train(store, 0, tmp_path / "run", tiny_config(loggers=("tensorboard",)))
    assert "https://***@host/api" in caplog.text
    assert "secret" not in caplog.text
