"""Overlapping regions from the command to a scored model: each is learned, validated, written and scored by itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import decathlete
from decathlete.cli.main import main
from decathlete.io.images import read_image, read_label, write_image
from decathlete.models.record import ModelRecord
from decathlete.preprocessing.store import PreparedStore
from decathlete.synthetic.phantoms import make_phantoms

NAMES = ["whole tumour", "core", "enhancing"]


def _phantoms(root: Path) -> Path:
    """Three labels with names that --brats understands, in a body whose outside is zero."""
    make_phantoms(root, n_cases=5, n_classes=3, shape_ZYX=(16, 28, 16), noise=0.2)
    path = root / "dataset.json"
    manifest = json.loads(path.read_text())
    manifest["labels"] = {"0": "background", "1": "NCR", "2": "peritumoral_edema", "3": "GD-enhancing tumour"}
    path.write_text(json.dumps(manifest))
    for file in sorted((root / "imagesTr").glob("*.nii.gz")):
        image = read_image(file)
        array_CZYX = image.array_CZYX.copy()
        array_CZYX[:, :3, :3] = 0
        write_image(file, array_CZYX, image.geometry)
    return root


def _run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["decathlete", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code in (0, None)


def test_brats_with_a_foreground_channel_to_a_scored_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _phantoms(tmp_path / "data" / "Task01_Glioma")
    places = [f"--{name}={tmp_path / name}" for name in ("data", "prepared", "results")]
    train = ["--epochs", "2", "--steps-per-epoch", "40", "--device", "cpu", "--set", "network.features=8,16,32"]
    lines = decathlete.check(root, brats=True).lines()
    assert "region core: 1 NCR, 3 GD-enhancing tumour (written as 1)" in lines
    _run(["run", "1", "--brats", "--foreground-channel", *train, *places], monkeypatch)
    store = PreparedStore.open(tmp_path / "prepared" / "Task01_Glioma" / "3d")
    assert store.plan.labels.region_order == (2, 1, 3)
    stored = store.case(store.case_ids[0]).read_image()
    assert stored.shape[0] == 2
    assert set(np.unique(stored[1])) == {0, 1}

    run = tmp_path / "results" / "Task01_Glioma" / "3d" / "fold_0"
    plan = ModelRecord.load(run / "model" / "model.json").plan
    assert (plan.foreground_channel, plan.network.in_channels, plan.network.out_channels) == (True, 2, 3)
    assert list(json.loads((run / "logs.json").read_text())["epochs"][-1]["dice"]) == NAMES
    scores = json.loads((run / "scores.json").read_text())
    assert [c["name"] for c in scores["classes"]] == NAMES
    assert scores["headline"]["dice"] > 0.5, "three bright blobs in noise are learned in 80 steps"
    _expect_own_scores(scores, run, root)
    rows = (run / "scores.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:4]] == NAMES
    report = (run / "report.html").read_text()
    assert "peritumoral_edema" in report
    assert "foreground mask" in report

    _expect_evaluate_to_agree(scores, run, root, tmp_path / "truths", monkeypatch)
    image = read_image(next((root / "imagesTr").glob("*.nii.gz")))
    prediction = decathlete.Predictor.load(run, device="cpu").predict(image.array_CZYX, geometry=image.geometry)
    assert list(prediction.volumes_ml) == NAMES


def _expect_own_scores(scores: dict, run: Path, root: Path) -> None:
    """Each region's Dice is that of its own voxels in the label map, under its own name."""
    members = {"whole tumour": (1, 2, 3), "core": (1, 3), "enhancing": (3,)}
    for case in scores["cases"]:
        name = f"{case['case_id']}.nii.gz"
        maps = [read_label(folder / name).array_ZYX for folder in (run / "validation", root / "labelsTr")]
        assert set(np.unique(maps[0])) <= {0, 1, 2, 3}
        for region in case["classes"]:
            predicted, true = (np.isin(label, members[region["name"]]) for label in maps)
            assert region["dice"] == pytest.approx(2 * (predicted & true).sum() / (predicted.sum() + true.sum()))


def _expect_evaluate_to_agree(
    scores: dict, run: Path, root: Path, truths: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command finds the same regions by the names in the manifest that lies beside the label maps."""
    truths.mkdir()
    shutil.copy(root / "dataset.json", truths)
    for case in scores["cases"]:
        shutil.copy(root / "labelsTr" / f"{case['case_id']}.nii.gz", truths)
    folders = [f"--preds={run / 'validation'}", f"--lbls={truths}", f"--output={truths / 'scores'}"]
    _run(["evaluate", "--brats", *folders], monkeypatch)
    again = json.loads((truths / "scores" / "scores.json").read_text())
    assert (again["classes"], again["headline"]) == (scores["classes"], scores["headline"])
