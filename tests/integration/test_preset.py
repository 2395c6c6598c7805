"""``run --preset recipe`` on a phantom that is called as a task of the Decathlon: to a scored model by its settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decathlete.cli.main import main
from decathlete.models.bundle import ModelBundle
from decathlete.synthetic.phantoms import make_phantoms


@pytest.mark.parametrize(
    ("dim", "patch", "batch", "more"),
    [("3", (40, 56, 40), 2, ()), ("2", (56, 40), 16, ("--nvol", "4"))],
)
def test_a_task_of_the_table_is_trained_and_scored_by_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dim: str, patch: tuple[int, ...], batch: int, more: tuple[str, ...]
) -> None:
    make_phantoms(tmp_path / "data" / "Task04_Hippocampus", n_cases=4, shape_ZYX=(36, 50, 35))
    length = ["--epochs", "2", "--steps-per-epoch", "2", "--n-folds", "2", "--filters", "4,8,8,8", "--device", "cpu"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["decathlete", "run", "4", "--preset", "recipe", "--dim", dim, *length, *more])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None)
    folder = tmp_path / "results" / "Task04_Hippocampus" / f"{dim}d" / "fold_0"
    record = ModelBundle.load(folder).record
    assert (record.plan.patch_size, record.plan.batch_size, record.plan.preprocessing_order) == (patch, batch, "recipe")
    assert record.plan.network.heads == 1
    config = record.training_provenance["config"]
    assert (config["optimizer"]["learning_rate"], config["ema_decay"]) == (8e-4, 0)
    assert config["sampler"]["nvol"] == (4 if dim == "2" else None)
    assert not config["augmentation"]["rotation"]["enabled"]
    assert json.loads((folder / "scores.json").read_text())["headline"]["values"]["dice"] is not None
