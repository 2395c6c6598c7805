"""Logs and the record of a run."""

from __future__ import annotations

import csv
import json
import math

from decathlete.training.config import TrainConfig
from decathlete.training.reporting.records import EpochRecord, Logs, RunRecord, write_logs


def epoch(number: int, **changes: object) -> EpochRecord:
    values = {
        "epoch": number,
        "step": 5 * (number + 1),
        "seconds": 2.0,
        "elapsed": 2.0 * (number + 1),
        "train_loss": 0.5,
        "learning_rate": 1e-3,
        "patches_per_second": 3.0,
    }
    return EpochRecord(**(values | changes))


def test_both_files_hold_every_epoch(tmp_path):
    first = epoch(0, train_loss=math.nan, skipped_steps=5)
    second = epoch(1, dice={"liver": 0.5, "tumour": None}, mean_dice=0.5, best_dice=0.5, best_epoch=1, val_loss=0.7)
    write_logs(tmp_path, ["liver", "tumour"], [first, second])
    logs = json.loads((tmp_path / "logs.json").read_text())
    assert (logs["version"], logs["classes"], len(logs["epochs"])) == (1, ["liver", "tumour"], 2)
    assert logs["epochs"][0]["val_loss"] is None
    assert logs["epochs"][1]["dice"] == {"liver": 0.5, "tumour": None}
    assert Logs.load(tmp_path / "logs.json").epochs[1] == second
    with (tmp_path / "logs.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows[1]["dice_liver"] == "0.5"
    assert rows[1]["dice_tumour"] == ""
    assert rows[0]["skipped_steps"] == "5"


def run_record(**changes: object) -> RunRecord:
    values = {
        "version": "0",
        "dataset": "Phantom",
        "dataset_root": None,
        "dataset_digest": "a",
        "prepared": "p",
        "dims": 3,
        "fold": 0,
        "train": ("a", "b"),
        "val": ("c",),
        "config": TrainConfig(epochs=1),
        "plan_digest": "x",
        "started": "now",
    }
    return RunRecord(**(values | changes))


def test_a_moved_dataset_is_the_same_run_but_another_plan_or_option_is_not():
    record = run_record()
    assert record.differences(run_record(dataset_root="/elsewhere", prepared="q", started="later")) == []
    assert record.differences(run_record(plan_digest="y", config=TrainConfig(epochs=2))) == [
        "another plan",
        "epochs: 1 -> 2",
    ]
    assert record.differences(run_record(dataset_digest="b", fold=1)) == ["another dataset", "another fold"]


def test_round_trip(tmp_path):
    record = run_record(fold="all")
    record.save(tmp_path / "run.json")
    assert RunRecord.load(tmp_path / "run.json") == record
