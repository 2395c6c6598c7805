"""``validate --grid prepared``: scores on the grid that the network sees, told apart from those that count."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import decathlete
from decathlete.cli.main import main
from decathlete.evaluation.scores import Scores
from decathlete.inference.windows.sweep import predict_logits
from decathlete.models.bundle import ModelBundle
from decathlete.preprocessing.store import PreparedStore
from decathlete.synthetic.phantoms import make_phantoms


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of coarser voxels than the files have, trained a little."""
    root = tmp_path_factory.mktemp("grid")
    dataset = make_phantoms(root / "data" / "Task08_Balls", n_cases=5, shape_ZYX=(16, 20, 18), oblique=True, noise=0.2)
    workspace = decathlete.Workspace(data=root / "data", prepared=root / "prepared", results=root / "results")
    plan = ("target_spacing=1.5,1.5,1.5", "patch_size=8,16,16", "network.features=8,16")
    options = decathlete.PlanOptions(overrides=plan, n_folds=2, depth=1)
    decathlete.preprocess(dataset, workspace=workspace, options=options, workers=1)
    config = decathlete.TrainConfig(epochs=1, steps_per_epoch=25, device="cpu", loggers=(), val_cases=0)
    return decathlete.train(dataset, workspace=workspace, config=config, adapt=False).folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["decathlete", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None)


def test_they_are_the_dice_of_prepared_arrays_and_say_so(run, monkeypatch, capsys):
    ours = ["--model", run, "--device", "cpu", "--precision", "fp32"]
    call(monkeypatch, "validate", *ours, "--grid", "prepared")
    assert capsys.readouterr().out.rstrip().endswith("on the prepared grid, not the files' own")
    assert not (run / "scores.json").exists()
    assert not (run / "validation").exists()
    scores = Scores.load(run / "scores_prepared.json")
    assert scores.grid == "prepared"
    assert (run / "scores_prepared.csv").read_text().splitlines()[1].endswith(",prepared")
    expect_plain_computation(run, scores)

    call(monkeypatch, "validate", *ours)
    assert "prepared" not in capsys.readouterr().out
    headline = Scores.load(run / "scores.json")
    assert headline.grid == "original"
    assert headline.headline.dice != pytest.approx(scores.headline.dice, abs=1e-6)
    assert Scores.load(run / "scores_prepared.json") == scores, "one leaves the other alone"


def expect_plain_computation(run: Path, scores: Scores) -> None:
    bundle = ModelBundle.load(run / "model")
    plan, network = bundle.record.plan, bundle.build().eval()
    record = json.loads((run / "run.json").read_text())
    store = PreparedStore.open(run.parents[3] / "prepared" / "Task08_Balls" / "3d")
    assert [case.case_id for case in scores.cases] == sorted(record["val"])
    for case in scores.cases:
        stored = store.case(case.case_id)
        predicted = predict_logits(network, stored.read_image(), plan=plan, precision="fp32").argmax(dim=0).numpy()
        truth = stored.read_label()
        for index, found in enumerate(case.classes, start=1):
            a, b = predicted == index, truth == index
            assert found.dice == pytest.approx(
                2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))
            )
            assert found.truth_ml == pytest.approx(np.count_nonzero(b) * 1.5**3 / 1000)


def test_scores_of_the_prepared_grid_do_not_pass_for_others(run, monkeypatch, capsys):
    ours = ["--model", run, "--device", "cpu", "--precision", "fp32"]
    call(monkeypatch, "validate", *ours, "--grid", "prepared")
    before = (run / "scores_prepared.json").stat().st_mtime_ns
    call(monkeypatch, "validate", *ours, "--grid", "prepared")
    assert (run / "scores_prepared.json").stat().st_mtime_ns == before, "kept"
    (run / "scores.json").write_bytes((run / "scores_prepared.json").read_bytes())
    monkeypatch.setattr("sys.argv", ["decathlete", "validate", *map(str, ours)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "they are on the prepared grid" in capsys.readouterr().err
